"""Strict parsing and writing of signed tokens (RFC 7515) and JSON (RFC 8259), without keys or clocks."""
