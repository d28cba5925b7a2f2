"""Tokens and headers, taken apart and put together without a check."""

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

import jwt

JWT = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}")
"""The shape of a token, wherever it stands."""


def claims_of(token: str) -> dict[str, Any]:
    """The claims that a token says it has."""
    return jwt.decode(token, options={"verify_signature": False})


def kid_of(token: str) -> str:
    """The key that a token says it is signed with."""
    return jwt.get_unverified_header(token)["kid"]


def bearer(token: str) -> dict[str, str]:
    """The header that presents a token."""
    return {"Authorization": f"Bearer {token}"}


def token_of(headers: Mapping[str, str]) -> str:
    """The token that a header presents, or nothing."""
    return headers.get("Authorization", "").removeprefix("Bearer ")


def basic(client_id: str, secret: str) -> dict[str, str]:
    """The header that presents a client's secret (RFC 6749, 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
