"""Issues our access tokens (RFC 9068), and verifies them strictly when a client sends one to our API."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jwt
import msgspec

from sentryagent_idp.domain.identity import SignedClaims
from sentryagent_idp.errors import Unauthorized
from sentryagent_idp.jose import compact_jws
from sentryagent_idp.jose.compact_jws import UnverifiedJwt
from sentryagent_idp.tokens.signing_key import SigningKey

TYPE = "at+jwt"
"""The `typ` that distinguishes an access token from an ID token (RFC 9068, 2.1)."""

LEEWAY_SECONDS = 30
"""How far the clocks of two replicas may differ, so that one accepts at once a token that the other issued."""

_STRINGS = ("iss", "sub", "aud", "client_id", "scope", "jti")
_TYPES: dict[str, tuple[type, str]] = {
    **dict.fromkeys(_STRINGS, (str, "string")),
    **dict.fromkeys(("iat", "nbf", "exp"), (int, "whole number")),
}


class AccessTokenClaims(msgspec.Struct, frozen=True, omit_defaults=True):
    """The claims of an access token (RFC 9068, 2.2); times are in seconds since the epoch.

    `provenance` describes the run that the token was issued to; an admin's token has none, but can have a `person`.
    """

    iss: str
    sub: str
    aud: str
    client_id: str
    scope: str
    iat: int
    exp: int
    jti: str
    provenance: Mapping[str, Any] | None = None
    person: str | None = None


def issue(key: SigningKey, claims: AccessTokenClaims) -> str:
    """Sign an access token that is valid from its `iat`."""
    payload = {**msgspec.to_builtins(claims), "nbf": claims.iat}
    sign = jwt.get_algorithm_by_name(key.alg).sign
    return compact_jws.write(
        {"alg": key.alg, "kid": key.kid, "typ": TYPE}, payload, lambda content: sign(content, key.private_key)
    )


def verify(
    unverified_token: str, *, issuer: str, audience: str | None, keys: Mapping[str, SigningKey], now: int
) -> SignedClaims:
    """Return the claims of one of our access tokens, valid at `now` (seconds since the epoch); `keys` are by `kid`.

    If `audience` is `None`, any audience is accepted.
    `nbf` has a leeway, because another replica's clock may have set it; `exp` has none, so that no token is accepted
    after it expired. Revocation is not checked here.
    Raises `Unauthorized`.
    """
    token = _read(unverified_token)
    _check_signature(token, keys)
    _check_claims(token.claims, issuer, audience)
    _check_times(token.claims, now)
    return SignedClaims(MappingProxyType(dict(token.claims)))


def _read(unverified_token: str) -> UnverifiedJwt:
    try:
        token = compact_jws.read(unverified_token)
    except compact_jws.MalformedToken as error:
        raise Unauthorized(
            f"The access token cannot be read: {error}; send it exactly as it was issued."
        ) from error
    # GitHub's ID token is an identity to exchange, not a permission (RFC 8725, 3.11; B15).
    if token.typ != TYPE:
        raise Unauthorized(
            "This is not an access token; exchange GitHub's ID token for one at POST /api/v1/oidc/token."
        )
    return token


def _check_signature(token: UnverifiedJwt, keys: Mapping[str, SigningKey]) -> None:
    key = keys.get(token.kid)
    if key is None:
        raise Unauthorized("The access token's signing key is unknown or was revoked; get a new token.")
    # The key determines the algorithm; the header must agree with it (RFC 8725, 3.1).
    algorithm = jwt.get_algorithm_by_name(key.alg)
    if token.alg != key.alg or not algorithm.verify(token.signing_input, key.public_key, token.signature):
        raise Unauthorized(
            "The access token's signature is invalid; send the token exactly as it was issued."
        )


def _check_claims(claims: Mapping[str, Any], issuer: str, audience: str | None) -> None:
    for name, (kind, noun) in _TYPES.items():
        if type(claims.get(name)) is not kind:
            raise Unauthorized(
                f"The access token's claim {name} is missing or not a {noun}; get a new token."
            )
    if not isinstance(claims.get("provenance", {}), dict):
        raise Unauthorized("The access token's claim provenance is not an object; get a new token.")
    if not isinstance(claims.get("person", ""), str):
        raise Unauthorized("The access token's claim person is not a string; get a new token.")
    if claims["iss"] != issuer:
        raise Unauthorized(f"The access token is from another issuer; use one that {issuer} issued.")
    if audience not in {None, claims["aud"]}:
        raise Unauthorized(
            f"The access token is for another service, {claims['aud']}, and is not accepted here; "
            f"get one for {audience} from an exchange without `resource`."
        )


def _check_times(claims: Mapping[str, Any], now: int) -> None:
    if now >= claims["exp"]:
        raise Unauthorized("The access token is expired; get a new one.")
    if now < claims["nbf"] - LEEWAY_SECONDS:
        raise Unauthorized(
            "The access token is not valid yet; compare the clocks of this provider's machines."
        )
