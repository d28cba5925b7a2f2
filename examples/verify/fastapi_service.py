"""A service with FastAPI: uvicorn fastapi_service:app. TOKEN_AUDIENCE is the service's identifier at the provider."""

import logging
import os
from collections.abc import Callable
from typing import Annotated, Any

from access_token import Gate, Refused
from fastapi import Depends, FastAPI, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

app = FastAPI()
gate = Gate(os.environ["TOKEN_ISSUER"], os.environ["TOKEN_AUDIENCE"])
bearer = HTTPBearer(auto_error=False)


def requires(scope: str) -> Callable[..., dict[str, Any]]:
    """Make a dependency that gives the claims of a token with the scope."""

    # Not `async`: FastAPI runs it in a thread, since it waits for the network when it fetches the keys.
    def claims(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> dict[str, Any]:
        return gate.require(sent.credentials if sent else None, scope)

    return claims


@app.exception_handler(Refused)
def refuse(_: Request, refused: Refused) -> Response:
    """Answer as RFC 6750 says; the reason is for the log alone."""
    logging.getLogger("uvicorn").warning("refused: %s, %r", refused, refused.__cause__)
    return Response(status_code=refused.status, headers=refused.headers)


@app.get("/deployments")
def deployments(claims: Annotated[dict[str, Any], Depends(requires("deploy:read"))]) -> dict[str, Any]:
    """What a token with deploy:read may see."""
    return {"agent": claims["sub"]}


@app.post("/deployments")
def deploy(claims: Annotated[dict[str, Any], Depends(requires("deploy:production"))]) -> dict[str, Any]:
    """What a token with deploy:production may do."""
    return {"agent": claims["sub"]}
