"""GitHub's documents: the discovery document and the JWK Set, read as strictly as its tokens."""

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sentryagent_idp.jose import base64url, strict_json

MAX_DOCUMENT_BYTES = 256 * 1024
MAX_KEYS = 64
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""Larger keys only cost time: each token would be checked with them."""

_LIMITS = strict_json.Limits(depth=8, members=4096, string_length=MAX_DOCUMENT_BYTES)


class UnusableDocument(ValueError):
    """A document of the issuer cannot be used; the message says why."""


def jwks_uri(discovery: bytes, issuer: str) -> str:
    """Where the issuer's keys are (OpenID Connect Discovery 1.0, 4.2 and 4.3). GitHub's document has little else.

    Raises `UnusableDocument`, also where the document is another issuer's.
    """
    document = _object(discovery, "discovery document")
    if document.get("issuer") != issuer:
        raise UnusableDocument("its discovery document names another issuer")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str):
        raise UnusableDocument("its discovery document has no jwks_uri")
    return uri


def read(jwk_set: bytes) -> Mapping[str, RSAPublicKey]:
    """The usable keys of a JWK Set (RFC 7517, 5) by their `kid`; at least one.

    Keys for other purposes or algorithms, and short ones, are passed over, as RFC 7517 wants it; a set that is
    damaged or ambiguous is refused as a whole. Raises `UnusableDocument`.
    """
    entries = _object(jwk_set, "key set").get("keys")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnusableDocument("its key set has no list of keys")
    if len(entries) > MAX_KEYS:
        raise UnusableDocument(f"its key set has more than {MAX_KEYS} keys")
    kids = [entry.get("kid") for entry in entries]
    # Which of two keys a kid means must not depend on the order (federation-security B5).
    if any(kids.count(kid) > 1 for kid in kids if kid is not None):
        raise UnusableDocument("its key set has the same kid twice")
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
    # Only n and e are looked at: neither x5c nor private fields have a say in what the key is.
    try:
        return rsa.RSAPublicNumbers(e=_number(entry.get("e")), n=_number(entry.get("n"))).public_key()
    except ValueError as error:
        raise UnusableDocument("its key set has an RSA key that is none") from error


def _number(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError("not base64url")  # noqa: TRY004 - one error for every value that is not a number
    return int.from_bytes(base64url.decode(value))


def _object(text: bytes, name: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(text, _LIMITS)
    except strict_json.StrictJsonError as error:
        raise UnusableDocument(f"its {name} is not acceptable: {error.reason}") from error
    if not isinstance(value, dict):
        raise UnusableDocument(f"its {name} is not a JSON object")
    return value
