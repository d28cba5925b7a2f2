"""Check the access token of an agent with PyJWT: python verify_with_pyjwt.py ISSUER AUDIENCE SCOPE < token."""

import sys

import jwt

ALGORITHMS = ["ES256", "RS256", "EdDSA"]
REQUIRED = ["iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti"]


def verify(token: str, keys: jwt.PyJWKClient, issuer: str, audience: str) -> dict[str, object]:
    """Return the token's claims (RFC 9068, 4); raises jwt.PyJWTError. Keep `keys`: it caches what it fetched."""
    # Before the signature: a token that the same keys signed for another purpose is no access token.
    if jwt.get_unverified_header(token).get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token")
    claims: dict[str, object] = jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=ALGORITHMS,
        issuer=issuer,
        audience=audience,
        options={"require": REQUIRED},
    )
    return claims


def main(issuer: str, audience: str, scope: str) -> None:
    """Say who calls, or end with exit code 1."""
    keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json", timeout=5)
    try:
        claims = verify(sys.stdin.read().strip(), keys, issuer, audience)
    except jwt.PyJWTError as error:
        sys.exit(f"401: {error}")
    if scope not in str(claims["scope"]).split():
        sys.exit(f"403: the token lacks the scope {scope}")
    print(f"200: agent {claims['sub']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
