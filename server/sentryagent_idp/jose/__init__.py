"""The grammar of signed tokens (RFC 7515, RFC 8259), strict; no keys and no clocks."""
