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
    """Return a dependency that provides the claims of a token with the scope."""

    # Not `async`, so that FastAPI runs it in a thread: it blocks on the network while it fetches the keys.
    def claims(sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> dict[str, Any]:
        return gate.require(sent.credentials if sent else None, scope)

    return claims


@app.exception_handler(Refused)
def refuse(_: Request, refused: Refused) -> Response:
    """Respond as RFC 6750 requires; the reason is only for the log."""
    logging.getLogger("uvicorn").warning("refused: %s, %r", refused, refused.__cause__)
    return Response(status_code=refused.status, headers=refused.headers)


@app.get("/deployments")
def deployments(claims: Annotated[dict[str, Any], Depends(requires("deploy:read"))]) -> dict[str, Any]:
    """List the deployments; the token needs deploy:read."""
    return {"agent": claims["sub"]}


@app.post("/deployments")
def deploy(claims: Annotated[dict[str, Any], Depends(requires("deploy:production"))]) -> dict[str, Any]:
    """Deploy; the token needs deploy:production."""
    return {"agent": claims["sub"]}
