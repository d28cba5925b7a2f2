"""Introspect each token (RFC 7662) for nginx (nginx.conf): flask --app introspect run. Uses a client of the service."""

import os
from typing import Any

import httpx
from flask import Flask, Response, request

ISSUER, AUDIENCE = os.environ["TOKEN_ISSUER"], os.environ["TOKEN_AUDIENCE"]

app = Flask(__name__)
provider = httpx.Client(auth=(os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"]), timeout=5)


def introspect(token: str) -> dict[str, Any]:
    """Return the provider's response; `active` decides. Raises httpx.HTTPError: without a response, access is denied."""
    answer = provider.post(f"{ISSUER}/api/v1/token/introspect", data={"token": token})
    body: dict[str, Any] = answer.raise_for_status().json()
    return body


def refusal(status: int, challenge: str) -> Response:
    """Create the response that nginx passes on (RFC 6750, 3)."""
    return Response(status=status, headers={"WWW-Authenticate": challenge})


@app.get("/")
def decide() -> Response:
    """Return 204 if the token is valid and has the scope in `X-Required-Scope`, else 401 or 403."""
    scope = request.headers["X-Required-Scope"]
    sent = request.authorization
    if sent is None or sent.type != "bearer" or not sent.token:
        return refusal(401, "Bearer")
    answer = introspect(sent.token)
    if answer["active"] is not True or (answer["iss"], answer["aud"]) != (ISSUER, AUDIENCE):
        return refusal(401, 'Bearer error="invalid_token"')
    if scope not in str(answer["scope"]).split(" "):
        return refusal(403, f'Bearer error="insufficient_scope", scope="{scope}"')
    return Response(status=204, headers={"X-Agent": str(answer["sub"])})
