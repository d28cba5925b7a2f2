"""Writes and parses the compact form of a signed token (RFC 7515, 7.1), without verifying it."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from sentryagent_idp.jose import base64url, strict_json

MAX_TOKEN_LENGTH = 16 * 1024
"""In characters; GitHub's tokens have about 1,800."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_KID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_HEADER_LIMITS = strict_json.Limits(depth=8, fields=100, string_length=4 * 1024)
_PAYLOAD_LIMITS = strict_json.Limits(
    depth=8, fields=MAX_TOKEN_LENGTH, string_length=MAX_TOKEN_LENGTH, nul=False
)
"""The token's size limits fields and strings: an organisation can add any number of custom properties."""

_FORBIDDEN_HEADERS = ("jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc")
"""Each lets the sender choose the key (B2) or change how the token is read (B13, B14); libraries accept most of them."""


class MalformedToken(ValueError):
    """The text is not a token that we accept; the message says why and never repeats the text."""


class OversizedToken(MalformedToken):
    """The token may be valid, but is larger than our limit."""


class UnverifiedJwt(msgspec.Struct, frozen=True):
    """The parts of a token; its signature is not verified yet."""

    kid: str
    alg: Any
    typ: Any
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes


def read(unverified_token: str) -> UnverifiedJwt:
    """Parse a compact JWS.

    `alg` and `typ` are unchecked values from the header; without `typ`, the type is `JWT` (RFC 7519, 5.1).
    Raises `MalformedToken`.
    """
    # Check the size first, so that base64 and JSON are decoded only from small input (B9).
    if len(unverified_token) > MAX_TOKEN_LENGTH:
        raise OversizedToken(f"it is longer than {MAX_TOKEN_LENGTH} characters")
    parts = _COMPACT.fullmatch(unverified_token)
    if parts is None:
        raise MalformedToken("it is not three base64url parts separated by dots")
    header = _header(parts[1])
    signature = _decode(parts[3], "signature")
    if not signature:
        raise MalformedToken("its signature is empty")
    return UnverifiedJwt(
        kid=header["kid"],
        alg=header.get("alg"),
        typ=header.get("typ", "JWT"),
        claims=_object(parts[2], "payload", _PAYLOAD_LIMITS),
        signing_input=f"{parts[1]}.{parts[2]}".encode("ascii"),
        signature=signature,
    )


def write(header: Mapping[str, Any], claims: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """Return a compact JWS of a header and claims, with the signature that `sign` computes over their bytes."""
    signing_input = ".".join(base64url.encode(msgspec.json.encode(part)) for part in (header, claims))
    return f"{signing_input}.{base64url.encode(sign(signing_input.encode()))}"


def _decode(part: str, name: str) -> bytes:
    try:
        data = base64url.decode(part)
    except ValueError as error:
        raise MalformedToken(f"its {name} is not base64url") from error
    # Otherwise one token could have up to sixteen spellings (B8).
    if not base64url.is_canonical(part):
        raise MalformedToken(f"its {name} is not canonical base64url")
    return data


def _object(part: str, name: str, limits: strict_json.Limits) -> dict[str, Any]:
    text = _decode(part, name)
    try:
        value = strict_json.parse(text, limits)
    except strict_json.StrictJsonError as error:
        raise MalformedToken(f"its {name} is not acceptable: {error.reason}") from error
    if not isinstance(value, dict):
        raise MalformedToken(f"its {name} is not a JSON object")
    return value


@lru_cache(maxsize=64)
def _header(part: str) -> Mapping[str, Any]:
    """Return the checked header; tokens signed by one key share it, so it is cached."""
    header = _object(part, "header", _HEADER_LIMITS)
    _check_header(header)
    return header


def _check_header(header: Mapping[str, Any]) -> None:
    for name in _FORBIDDEN_HEADERS:
        if name in header:
            raise MalformedToken(f"its header has {name}, which is not accepted")
    kid = header.get("kid")
    if not isinstance(kid, str) or _KID.fullmatch(kid) is None:
        raise MalformedToken("its `kid` is missing or is not 1 to 128 characters from A-Z a-z 0-9 . _ ~ -")
