"""A provider for verifiers: its signing key is the test's, so that it signs whatever an attack needs."""

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

from kit.http import serving

SECRET = "sk_live_of_a_service"


class Issuer:
    """Access tokens for services (RFC 9068), their keys, and what introspection says about them (RFC 7662)."""

    def __init__(self) -> None:
        self.url = ""
        self.key = generate_private_key(SECP256R1())
        self.kid = uuid4().hex
        self._revoked: set[str] = set()

    def token(self, audience: str, *scopes: str) -> str:
        """A token that an agent has for a service."""
        return self.sign({"aud": audience, "scope": " ".join(scopes)})

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A token with these claims and header fields in place of the usual ones; `...` removes one."""
        now, agent = int(time.time()), str(uuid4())
        usual = {"iss": self.url, "sub": agent, "client_id": agent, "iat": now, "nbf": now, "exp": now + 300}
        usual |= {"jti": str(uuid4()), "scope": ""} | claims
        head = {"typ": "at+jwt", "kid": self.kid} | header
        kept = {name: value for name, value in usual.items() if value is not ...}
        return jwt.encode(kept, self.key, "ES256", {k: None if v is ... else v for k, v in head.items()})

    def revoke(self, token: str) -> None:
        """End a token; only introspection knows."""
        self._revoked.add(token)

    def client_of(self, service: str) -> tuple[str, str]:
        """The id and the secret of a service's client."""
        return service, SECRET

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """What the provider says over HTTP."""
        if path == "/.well-known/jwks.json":
            public = json.loads(ECAlgorithm.to_jwk(self.key.public_key()))
            return 200, {"keys": [public | {"kid": self.kid, "alg": "ES256", "use": "sig"}]}
        assert path == "/api/v1/token/introspect"
        scheme, _, pair = headers["Authorization"].partition(" ")
        service, _, secret = b64decode(pair).decode().rpartition(":")
        assert (scheme, secret) == ("Basic", SECRET)
        return 200, self._introspect(parse_qs(body.decode())["token"][0], service)

    def _introspect(self, token: str, service: str) -> dict[str, Any]:
        rules = {"require": ["sub", "client_id", "scope", "iat", "exp", "jti"]}
        try:
            claims = jwt.decode(
                token, self.key.public_key(), ["ES256"], rules, issuer=self.url, audience=service
            )
            kind = jwt.get_unverified_header(token).get("typ")
        except jwt.PyJWTError:
            return {"active": False}
        if kind != "at+jwt" or token in self._revoked:
            return {"active": False}
        return {"active": True, **claims}


@contextmanager
def issuing() -> Iterator[Issuer]:
    """An issuer that answers on a free port."""
    issuer = Issuer()
    with serving(issuer.answer) as issuer.url:
        yield issuer
