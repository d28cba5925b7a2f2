"""What every request leaves behind: its id, one line in the log, and its share of the metrics."""

import logging
import time

import structlog
from flask import Flask, Response, g
from flask.globals import app_ctx, request_ctx
from structlog.contextvars import bind_contextvars, clear_contextvars

from sentryagent_idp.api.requests import begin
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.concurrency.loop import REFUSAL
from sentryagent_idp.errors import InvalidOidcToken, RateLimited, ServiceError
from sentryagent_idp.runtime.metrics import UNMATCHED

log = structlog.get_logger()

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Routes that machines ask every few seconds."""
_RUN_CLAIMS = {"repository": "repository", "repositoryId": "repository_id", "runId": "run_id"}


def register(app: Flask) -> None:
    """Observe every request of the application, also one that no route takes."""
    app.before_request(_begin)
    app.after_request(_end)


def record_refusal(error: ServiceError) -> None:
    """Let the request's line in the log say why it was refused."""
    g.refusal = error
    reason = error.reason if isinstance(error, InvalidOidcToken) else ""
    use_cases().metrics.refused(error.code, reason)
    if isinstance(error, RateLimited):
        use_cases().metrics.limited()


def mark_dry_run() -> None:
    """Let the request not count as one for a token."""
    g.outcome = "dry_run"


def _begin() -> None:
    """Observe a request from here on; raises the `ServiceError` of one that could not be read."""
    environ = request_ctx.request.environ
    g.began = time.perf_counter()
    clear_contextvars()
    bind_contextvars(requestId=begin(environ).request_id)
    refusal = environ.get(REFUSAL)
    if refusal is not None:
        raise refusal


def _end(response: Response) -> Response:
    request, seen = request_ctx.request, app_ctx.g  # `flask.request` and `flask.g` look them up with each use
    seconds = time.perf_counter() - seen.began
    made = seen.context
    response.headers.add("X-Request-Id", made.request_id)
    response.headers.add("X-Content-Type-Options", "nosniff")
    # Any method that HTTP does not have is the client's word, and as likely to be a secret as a path.
    method = request.method if request.method in _METHODS else "other"
    route = request.url_rule.rule if request.url_rule else None
    _count(request.endpoint, method, route, response.status_code, seconds)
    _log(method, route, response.status_code, seconds, made.address)
    return response


def _count(endpoint: str | None, method: str, route: str | None, status: int, seconds: float) -> None:
    metrics = use_cases().metrics
    metrics.answered(method, route or UNMATCHED, status, seconds)
    # OPTIONS needs no token, has the endpoint of one of the path's routes, and succeeds.
    if method != "POST":
        return
    if endpoint in {"exchange.exchange", "tokens.issue"}:
        metrics.token_requested(_outcome(status))
    elif endpoint == "agents.register":
        metrics.agent_registered(_outcome(status))


def _outcome(status: int) -> str:
    return g.get("outcome") or ("success" if status < 400 else "failure")


def _run(refusal: ServiceError) -> dict[str, object]:
    """Whose run was refused, if the token's signature was verified.

    Of any other token the log says nothing: a stranger could write every repository's name into it.
    """
    claims = refusal.claims if isinstance(refusal, InvalidOidcToken) else None
    return {name: claims[claim] for name, claim in _RUN_CLAIMS.items() if claim in claims} if claims else {}


def _log(method: str, route: str | None, status: int, seconds: float, address: str | None) -> None:
    """One line; the route's template instead of the path, in which a client may have written a secret."""
    refusal: ServiceError | None = g.get("refusal")
    level = logging.DEBUG if route in _PROBES else logging.INFO
    why = {"code": refusal.code, "reason": refusal.message, **_run(refusal)} if refusal else {}
    log.log(
        logging.ERROR if status >= 500 else level,
        "refused" if refusal else "answered",
        method=method,
        route=route,
        status=status,
        durationMs=round(seconds * 1000, 1),
        address=address,
        **why,
    )
