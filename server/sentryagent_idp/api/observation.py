"""The request id, the request log and the request metrics."""

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
"""Routes that are polled every few seconds; they are logged at debug level."""
_RUN_CLAIMS = {"repository": "repository", "repositoryId": "repository_id", "runId": "run_id"}


def register(app: Flask) -> None:
    """Observe every request to the application, including those that match no route."""
    app.before_request(_begin)
    app.after_request(_end)


def record_refusal(error: ServiceError) -> None:
    """Count a refusal, and have the request's log line say why."""
    g.refusal = error
    reason = error.reason if isinstance(error, InvalidOidcToken) else ""
    use_cases().metrics.refused(error.code, reason)
    if isinstance(error, RateLimited):
        use_cases().metrics.limited()


def mark_dry_run() -> None:
    """Count the request as a dry run instead of a token request."""
    g.outcome = "dry_run"


def _begin() -> None:
    """Start to observe a request; raises the `ServiceError` that the loop set if it could not read the request."""
    environ = request_ctx.request.environ
    g.began = time.perf_counter()
    clear_contextvars()
    bind_contextvars(requestId=begin(environ).request_id)
    refusal = environ.get(REFUSAL)
    if refusal is not None:
        raise refusal


def _end(response: Response) -> Response:
    request, seen = request_ctx.request, app_ctx.g  # `flask.request` and `flask.g` look them up on each use
    seconds = time.perf_counter() - seen.began
    made = seen.context
    response.headers.add("X-Request-Id", made.request_id)
    response.headers.add("X-Content-Type-Options", "nosniff")
    # A method that HTTP does not define is client input: like a path, it may contain a secret.
    method = request.method if request.method in _METHODS else "other"
    route = request.url_rule.rule if request.url_rule else None
    _count(request.endpoint, method, route, response.status_code, seconds)
    _log(method, route, response.status_code, seconds, made.address)
    return response


def _count(endpoint: str | None, method: str, route: str | None, status: int, seconds: float) -> None:
    metrics = use_cases().metrics
    metrics.answered(method, route or UNMATCHED, status, seconds)
    # OPTIONS needs no token, succeeds, and has the endpoint of one of the path's routes.
    if method != "POST":
        return
    if endpoint in {"exchange.exchange", "tokens.issue"}:
        metrics.token_requested(_outcome(status))
    elif endpoint == "agents.register":
        metrics.agent_registered(_outcome(status))


def _outcome(status: int) -> str:
    return g.get("outcome") or ("success" if status < 400 else "failure")


def _run(refusal: ServiceError) -> dict[str, object]:
    """The log fields that name the refused run, if the token's signature was verified.

    Nothing is logged of any other token: a stranger could write any repository's name into one.
    """
    claims = refusal.claims if isinstance(refusal, InvalidOidcToken) else None
    return {name: claims[claim] for name, claim in _RUN_CLAIMS.items() if claim in claims} if claims else {}


def _log(method: str, route: str | None, status: int, seconds: float, address: str | None) -> None:
    """Log one line, with the route's template instead of the path, which may contain a secret."""
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
