"""Check the access tokens of agents with PyJWT (RFC 9068, 4); the services for Flask, FastAPI and MCP use it."""

from typing import Any

import jwt

ALGORITHMS = ["ES256", "RS256", "EdDSA"]
TYPES = ("at+jwt", "application/at+jwt")
REQUIRED = ["iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti"]
LEEWAY_SECONDS = 30
"""How far the clocks of the provider and of this service may differ."""


class Refused(Exception):
    """A refused request: the HTTP status, and the response's `WWW-Authenticate` header (RFC 6750, 3)."""

    def __init__(self, status: int, challenge: str) -> None:
        super().__init__(status, challenge)
        self.status = status
        self.headers = {"WWW-Authenticate": challenge} if challenge else {}


def verify(token: str, keys: jwt.PyJWKClient, issuer: str, audience: str) -> dict[str, Any]:
    """Return the token's claims; raises jwt.PyJWTError. Reuse `keys`, which caches the keys that it fetched."""
    # The same keys may sign other kinds of tokens, which give no access (RFC 8725, 3.11).
    if jwt.get_unverified_header(token).get("typ") not in TYPES:
        raise jwt.InvalidTokenError("not an access token")
    claims: dict[str, Any] = jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=ALGORITHMS,
        issuer=issuer,
        audience=audience,
        leeway=LEEWAY_SECONDS,
        options={"require": REQUIRED},
    )
    return claims


class Gate:
    """Checks the token of each request: whether it is valid, is for this service, and has the scope."""

    def __init__(self, issuer: str, audience: str) -> None:
        self._issuer, self._audience = issuer, audience
        self._keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json", timeout=5)

    def claims(self, token: str | None) -> dict[str, Any]:
        """Return the claims of a valid token; raises Refused."""
        if not token:
            raise Refused(401, "Bearer")
        try:
            return verify(token, self._keys, self._issuer, self._audience)
        except jwt.PyJWKClientConnectionError as error:
            raise Refused(503, "") from error  # the token's validity is unknown
        except jwt.PyJWTError as error:
            raise Refused(401, 'Bearer error="invalid_token"') from error

    def require(self, token: str | None, scope: str) -> dict[str, Any]:
        """Return the claims of a valid token that has the scope; raises Refused."""
        claims = self.claims(token)
        if scope not in str(claims["scope"]).split(" "):
            raise Refused(403, f'Bearer error="insufficient_scope", scope="{scope}"')
        return claims
