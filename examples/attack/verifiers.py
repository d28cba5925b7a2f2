"""Verifiers of GitHub's ID tokens with well-known Python libraries, each as strict as its options allow.

Each responds to `POST {"token": …}` with 200 for a job of one repository, branch and event, else with 401 or 403.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import google.auth.exceptions
import google.auth.transport.requests
import google.oauth2.id_token
import jwt
import requests
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry, decode

REQUIRED = ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"]
POLICY = {"repository": "octo-org/hello-agent", "ref": "refs/heads/main", "event_name": "push"}
REFUSALS = (jwt.PyJWTError, JoseError, google.auth.exceptions.GoogleAuthError, ValueError)
Decode = Callable[[str], Mapping[str, Any]]


def pyjwt(issuer: str, audience: str) -> Decode:
    """Verify with PyJWT and its client for key sets, which caches them."""
    keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks", timeout=5)
    options = {"require": REQUIRED, "strict_aud": True}

    def claims_of(token: str) -> Mapping[str, Any]:
        key = keys.get_signing_key_from_jwt(token)
        return jwt.decode(token, key, ["RS256"], issuer=issuer, audience=audience, options=options)

    return claims_of


def joserfc(issuer: str, audience: str) -> Decode:
    """Verify with joserfc, which does not fetch keys, so the service fetches them once."""
    keys = KeySet.import_key_set(requests.get(f"{issuer}/.well-known/jwks", timeout=5).json())
    values = {"iss": issuer, "aud": audience}
    rules: Any = {
        name: {"essential": True, **({"value": values[name]} if name in values else {})} for name in REQUIRED
    }

    def claims_of(token: str) -> Mapping[str, Any]:
        claims = decode(token, keys, algorithms=["RS256"]).claims
        JWTClaimsRegistry(leeway=0, **rules).validate(claims)
        return claims

    return claims_of


def google_auth(issuer: str, audience: str) -> Decode:
    """Verify with google-auth's `verify_token`; the service itself checks the issuer."""
    transport = google.auth.transport.requests.Request()

    def claims_of(token: str) -> Mapping[str, Any]:
        claims = google.oauth2.id_token.verify_token(token, transport, audience, f"{issuer}/.well-known/jwks")
        if claims.get("iss") != issuer:
            raise google.auth.exceptions.GoogleAuthError("wrong issuer")
        return claims

    return claims_of


def _status(claims_of: Decode, token: str) -> int:
    try:
        claims = claims_of(token)
    except REFUSALS:
        return 401
    except Exception as error:  # noqa: BLE001 (a web framework answers so for what the program did not expect)
        print(f"{type(error).__name__} is not an error of the library's")
        return 500
    return 200 if claims.items() >= POLICY.items() else 403


@contextmanager
def served(claims_of: Decode) -> Iterator[str]:
    """Serve a verifier on a free port, and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(_status(claims_of, json.loads(body)["token"]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
