"""Cryptography without I/O: what GitHub signed, what we sign, and the keys of both."""
