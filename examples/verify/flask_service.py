"""A service with Flask: flask --app flask_service run. TOKEN_AUDIENCE is the service's identifier at the provider."""

import functools
import os
from collections.abc import Callable
from typing import Any

from access_token import Gate, Refused
from flask import Flask, g, request

app = Flask(__name__)
gate = Gate(os.environ["TOKEN_ISSUER"], os.environ["TOKEN_AUDIENCE"])

View = Callable[..., Any]


def requires(scope: str) -> Callable[[View], View]:
    """Allow a request to a view if its token has the scope; the view finds the token's claims in `g.claims`."""

    def guard(view: View) -> View:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            sent = request.authorization
            g.claims = gate.require(sent.token if sent and sent.type == "bearer" else None, scope)
            return view(*args, **kwargs)

        return guarded

    return guard


@app.errorhandler(Refused)
def refuse(refused: Refused) -> tuple[str, int, dict[str, str]]:
    """Respond as RFC 6750 requires; the reason is only for the log."""
    app.logger.warning("refused: %s, %r", refused, refused.__cause__)
    return "", refused.status, refused.headers


@app.get("/deployments")
@requires("deploy:read")
def deployments() -> dict[str, str]:
    """List the deployments; the token needs deploy:read."""
    return {"agent": g.claims["sub"]}


@app.post("/deployments")
@requires("deploy:production")
def deploy() -> dict[str, str]:
    """Deploy; the token needs deploy:production."""
    return {"agent": g.claims["sub"]}
