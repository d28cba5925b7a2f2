"""Parsing and building tokens and headers without any verification."""

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

import jwt

JWT = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}")
"""Matches a token anywhere in a text."""


def claims_of(token: str) -> dict[str, Any]:
    """The unverified claims of a token."""
    return jwt.decode(token, options={"verify_signature": False})


def kid_of(token: str) -> str:
    """The unverified `kid` of a token."""
    return jwt.get_unverified_header(token)["kid"]


def bearer(token: str) -> dict[str, str]:
    """The Authorization header for a token."""
    return {"Authorization": f"Bearer {token}"}


def token_of(headers: Mapping[str, str]) -> str:
    """The token in an Authorization header, or the empty string."""
    return headers.get("Authorization", "").removeprefix("Bearer ")


def basic(client_id: str, secret: str) -> dict[str, str]:
    """The Authorization header with a client's id and secret (RFC 6749, 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
