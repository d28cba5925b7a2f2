"""GitHub's discovery document and JWK Set, parsed as strictly as its tokens."""

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sentryagent_idp.jose import base64url, strict_json

MAX_DOCUMENT_BYTES = 256 * 1024
MAX_KEYS = 64
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""Larger keys would only make the verification of each token slower."""

_LIMITS = strict_json.Limits(depth=8, fields=4096, string_length=MAX_DOCUMENT_BYTES)


class UnusableDocument(ValueError):
    """A document from the issuer cannot be used; the message says why."""


def jwks_uri(discovery: bytes, issuer: str) -> str:
    """Return the URL of the issuer's keys (OpenID Connect Discovery 1.0, 4.2 and 4.3); GitHub's document has little else.

    Raises `UnusableDocument`, also if the document belongs to another issuer.
    """
    document = _object(discovery, "discovery document")
    if document.get("issuer") != issuer:
        raise UnusableDocument("its discovery document names another issuer")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str):
        raise UnusableDocument("its discovery document has no jwks_uri")
    return uri


def read(jwk_set: bytes) -> Mapping[str, RSAPublicKey]:
    """Return the usable keys of a JWK Set (RFC 7517, 5) by their `kid`; at least one.

    Keys for other purposes or algorithms, or of an unsupported size, are ignored, as RFC 7517 recommends; a damaged or
    ambiguous set is refused as a whole. Raises `UnusableDocument`.
    """
    entries = _object(jwk_set, "key set").get("keys")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnusableDocument("its key set has no list of keys")
    if len(entries) > MAX_KEYS:
        raise UnusableDocument(f"its key set has more than {MAX_KEYS} keys")
    kids = [entry.get("kid") for entry in entries]
    # If two keys shared a kid, their order would decide which one is used (B5).
    if any(kids.count(kid) > 1 for kid in kids if kid is not None):
        raise UnusableDocument("its key set has a duplicate kid")
    keys = {entry["kid"]: _rsa_key(entry) for entry in entries if _is_for_rs256(entry)}
    usable = {kid: key for kid, key in keys.items() if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS}
    if not usable:
        raise UnusableDocument("its key set has no RSA key for RS256")
    return usable


def _is_for_rs256(entry: Mapping[str, Any]) -> bool:
    return (
        isinstance(entry.get("kid"), str)
        and entry.get("kty") == "RSA"
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", "RS256") == "RS256"
    )


def _rsa_key(entry: Mapping[str, Any]) -> RSAPublicKey:
    # Only n and e define the key: x5c and private fields are ignored.
    try:
        return rsa.RSAPublicNumbers(e=_number(entry.get("e")), n=_number(entry.get("n"))).public_key()
    except ValueError as error:
        raise UnusableDocument("its key set contains an invalid RSA key") from error


def _number(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError("not base64url")  # noqa: TRY004 - the same error as for malformed text
    return int.from_bytes(base64url.decode(value))


def _object(text: bytes, name: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(text, _LIMITS)
    except strict_json.StrictJsonError as error:
        raise UnusableDocument(f"its {name} is not acceptable: {error.reason}") from error
    if not isinstance(value, dict):
        raise UnusableDocument(f"its {name} is not a JSON object")
    return value
