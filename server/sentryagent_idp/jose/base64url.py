"""base64url without padding (RFC 7515, 2; RFC 4648, 5)."""

import base64
import binascii

_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/***")
"""Translates to the alphabet of `binascii`; its own `+`, `/` and `=` become a character that it rejects."""
_LAST_CHARACTERS = {2: "AQgw", 3: "AEIMQUYcgkosw048"}
"""The characters whose unused bits are zero, by the number of characters in the last group."""


def encode(data: bytes) -> str:
    """Encode bytes as text."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Decode text to bytes, whatever the unused bits of its last character are; raises `ValueError`."""
    padding = b"=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text.encode("ascii").translate(_TO_BASE64) + padding, strict_mode=True)
    except ValueError as error:
        raise ValueError("not base64url") from error


def is_canonical(text: str) -> bool:
    """Return whether the unused bits of the last character are zero, as `encode` writes them (RFC 4648, 3.5)."""
    rest = len(text) % 4
    return rest == 0 or text[-1] in _LAST_CHARACTERS[rest]
