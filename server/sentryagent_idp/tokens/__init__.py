"""Cryptography without I/O: our access tokens and signing keys, and client secrets."""
