"""A token as a compact JWS: how it is made, and where a fault can change it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mock_idp.signing_keys import SigningKey, base64url, compact_json

if TYPE_CHECKING:
    from collections.abc import Callable

Fields = dict[str, Any]


@dataclass(frozen=True)
class Keys:
    """The keys that a token can be made with: the signing key, an idle published key, and a foreign key.

    `foreign` creates its key on first use; `foreign_url` is where a verifier that follows `jku` or `x5u` finds it.
    """

    signing: SigningKey
    idle: SigningKey
    foreign: Callable[[], SigningKey]
    foreign_url: str


@dataclass(frozen=True)
class Minted:
    """A token with its claims, before a fault changes their JSON text, and the kid of its header."""

    token: str = field(repr=False)
    claims: Fields
    kid: str | None


def _same_claims(claims: Fields) -> Fields:
    return claims


def _same_header(header: Fields, _keys: Keys) -> Fields:
    return header


def _signed(signing_input: bytes, keys: Keys) -> bytes:
    return keys.signing.sign(signing_input)


@dataclass(frozen=True)
class TokenFault:
    """How a token differs from a valid one; `description` is what a relying party has to notice.

    The functions are applied in the order in which a token is made: to the claims and header, to their JSON text, for
    the signature, to the finished token.
    """

    description: str
    claims: Callable[[Fields], Fields] = _same_claims
    header: Callable[[Fields, Keys], Fields] = _same_header
    header_text: Callable[[bytes], bytes] = bytes
    payload: Callable[[bytes], bytes] = bytes
    sign: Callable[[bytes, Keys], bytes] = _signed
    serialize: Callable[[str], str] = str


GOOD_TOKEN: Final = TokenFault("nothing is wrong")


def encode_jws(claims: Fields, header: Fields, keys: Keys, fault: TokenFault = GOOD_TOKEN) -> str:
    """Return claims and header as a compact JWS (RFC 7515, section 7.1); `fault` changes texts, signature and token."""
    texts = (fault.header_text(compact_json(header).encode()), fault.payload(compact_json(claims).encode()))
    signing_input = ".".join(base64url(text) for text in texts)
    return fault.serialize(f"{signing_input}.{base64url(fault.sign(signing_input.encode(), keys))}")
