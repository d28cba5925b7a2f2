"""The control API under `/_mock`: mint, plan faults, move the clock, rotate keys, start jobs, read the log."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from wsgiref.util import application_uri

from flask import Blueprint, Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from mock_idp.faults.plan import read_planned_fault
from mock_idp.faults.tokens import TOKEN_FAULTS
from mock_idp.http.own_names import is_own_name
from mock_idp.http.page import add_page
from mock_idp.issuer import TOKEN_FIELDS
from mock_idp.job import read_job
from mock_idp.strict_fields import InvalidFieldError, read_fields, require_known

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from mock_idp.issuer import Issuer


class Others(Protocol):
    """The issuers of a server in addition to its first one."""

    def add(self, issuer: str) -> tuple[str, Issuer]:
        """Add an issuer and return its path and state. Raises InvalidFieldError."""

    def restore(self) -> None:
        """Restore all issuers, including the first one, to the state after their start."""


def blueprint(issuer: Issuer, names: Collection[str], others: Others | None = None) -> Blueprint:
    """Create the control API of one issuer; that of a server's first issuer can also add and restore the others.

    `names` are the hosts of the server and of its issuers, including issuers added later.
    """
    routes = Blueprint("control", __name__, url_prefix="/_mock")
    _add_tokens_and_keys(routes, issuer)
    _add_jobs(routes, issuer)
    _add_faults(routes, issuer)
    _add_clock_and_log(routes, issuer, others.restore if others else issuer.restore)
    _add_state(routes, issuer)
    if others:
        _add_issuers(routes, others)
    add_page(routes, issuer, lambda: describe(issuer))
    routes.before_request(_refuse_other_origins)
    routes.before_request(lambda: _refuse_strange_names(names))
    return routes


def _refuse_other_origins() -> tuple[Response, int] | None:
    """Refuse other web pages: any page that a developer opens can submit a form to a server on 127.0.0.1."""
    origin = request.headers.get("Origin")
    if origin is None or urlsplit(origin).netloc == _host():
        return None
    return _error(
        403, "FORBIDDEN", f"A web page from {origin} may not control this mock; use the mock's own page."
    )


def _refuse_strange_names(names: Collection[str]) -> tuple[Response, int] | None:
    """Refuse unknown host names, against DNS rebinding. With TLS, a browser has already compared name and certificate."""
    if request.is_secure or is_own_name(_host(), names):
        return None
    return _error(
        403,
        "FORBIDDEN",
        f"{_host()} is not a host name of this mock; use its address, or start it with --issuer http://{_host()}.",
    )


def _host() -> str:
    """Return the `Host` header as sent: Werkzeug drops names with underscores, as containers and attackers may have."""
    return request.headers.get("Host", "")


def _add_tokens_and_keys(routes: Blueprint, issuer: Issuer) -> None:
    @routes.post("/token")
    def mint() -> Response:
        fields = read_fields(_body(), {**TOKEN_FIELDS, "job": "an object"})
        require_known("fault", fields.get("fault"), TOKEN_FAULTS)
        job = read_job(fields.pop("job", {}))
        return jsonify(token=issuer.mint(job, **fields))

    @routes.post("/keys/rotate")
    def rotate() -> Response:
        fields = read_fields(_body(), {"publish": "true or false", "keepOld": "true or false"})
        key = issuer.rotate(publish=fields.get("publish", True), keep_old=fields.get("keepOld", True))
        return jsonify(kid=key.kid)

    @routes.post("/keys/publish")
    def publish() -> Response:
        read_fields(_body(), {})
        return jsonify(kid=issuer.publish().kid)

    @routes.post("/keys/retire")
    def retire() -> Response:
        read_fields(_body(), {})
        return jsonify(retired=issuer.retire())


def _add_jobs(routes: Blueprint, issuer: Issuer) -> None:
    @routes.post("/jobs")
    def start_job() -> tuple[Response, int]:
        started = issuer.start_job(read_job(_body()))
        # Use the address that this caller reached: a container and its host may know the mock by different names.
        return jsonify(started.describe(application_uri(request.environ).rstrip("/"), issuer.url)), 201

    @routes.delete("/jobs/<job_id>")
    def end_job(job_id: str) -> tuple[Response, int]:
        if not issuer.end_job(job_id):
            return _error(404, "NOT_FOUND", f"No job {job_id} is in progress; it has ended or never existed.")
        return Response(), 204


def _add_faults(routes: Blueprint, issuer: Issuer) -> None:
    @routes.post("/faults")
    def plan_fault() -> tuple[Response, int]:
        issuer.plan_fault(read_planned_fault(_body()))
        return Response(), 204

    @routes.delete("/faults")
    def clear_faults() -> tuple[Response, int]:
        issuer.clear_faults()
        return Response(), 204


def _add_clock_and_log(routes: Blueprint, issuer: Issuer, restore_all: Callable[[], None]) -> None:
    @routes.post("/clock")
    def set_clock() -> Response:
        verbs = {"offset": issuer.clock.shift, "freeze": issuer.clock.freeze, "travel": issuer.clock.travel}
        fields = read_fields(_body(), dict.fromkeys(verbs, "a number"))
        if len(fields) != 1:
            raise InvalidFieldError(
                "offset", "or `freeze` or `travel` is required, and only one of the three"
            )
        [(verb, seconds)] = fields.items()
        verbs[verb](seconds)
        return jsonify(now=issuer.clock.now())

    @routes.get("/requests")
    def requests() -> Response:
        return jsonify(data=issuer.requests())

    @routes.post("/reset")
    def reset() -> tuple[Response, int]:
        read_fields(_body(), {})
        issuer.reset()
        return Response(), 204

    @routes.post("/restore")
    def restore() -> tuple[Response, int]:
        read_fields(_body(), {})
        restore_all()
        return Response(), 204


def _add_issuers(routes: Blueprint, others: Others) -> None:
    @routes.post("/issuers")
    def add() -> tuple[Response, int]:
        fields = read_fields(_body(), {"issuer": "a string"})
        mount, added = others.add(fields.get("issuer", ""))
        return jsonify(url=application_uri(request.environ).rstrip("/") + mount, issuer=added.url), 201


def _add_state(routes: Blueprint, issuer: Issuer) -> None:
    @routes.get("/health")
    def health() -> Response:
        return jsonify(status="ok")

    @routes.get("/state")
    def state() -> Response:
        return jsonify(describe(issuer))


def describe(issuer: Issuer) -> dict[str, Any]:
    """Return the state for `GET /_mock/state` and the page, without secrets."""
    clock = issuer.clock
    return {
        "issuer": issuer.url,
        "clock": {
            "now": clock.now(),
            "time": _utc(clock.now()),
            "offset": round(clock.offset),
            "frozen": clock.is_frozen,
        },
        "keys": {
            "signing": issuer.ring.signing.kid,
            "published": [key.kid for key in issuer.ring.published],
        },
        "jobs": [
            {"jobId": started.job_id, "repository": started.job.repository, "ref": started.job.ref}
            for started in issuer.jobs()
        ],
        "faults": [
            {name: value for name, value in vars(fault).items() if value not in ("", None)} | {"left": left}
            for fault, left in issuer.pending_faults()
        ],
        "requests": issuer.request_counts(),
    }


def _utc(epoch: int) -> str | None:
    """Return the time in ISO 8601; None for an epoch outside the supported years."""
    try:
        return f"{datetime.fromtimestamp(epoch, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"  # noqa: UP017 (one spelling for every supported Python)
    except (ValueError, OverflowError, OSError):
        return None


def _body() -> object:
    """Read the JSON body, whatever its content type (curl's default is a form); no body is an empty object."""
    try:
        return json.loads(request.get_data() or b"{}", object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidFieldError):
            raise
        raise InvalidFieldError("body", "must be JSON") from error


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        name = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise InvalidFieldError(name, "is a duplicate field")
    return fields


def _error(status: int, code: str, message: str, **details: str) -> tuple[Response, int]:
    return jsonify(code=code, message=message, details=details), status


def add_error_handlers(app: Flask) -> None:
    """Return every error as JSON with a code and a message."""

    @app.errorhandler(InvalidFieldError)
    def invalid(error: InvalidFieldError) -> tuple[Response, int]:
        return _error(400, "VALIDATION_ERROR", str(error), field=error.field, reason=error.reason)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        code = error.name.upper().replace(" ", "_")
        # Werkzeug's message addresses someone who typed the URL into a browser.
        about = "the mock has no such path" if error.code == 404 else error.description
        return _error(error.code or 500, code, f"{request.method} {request.path}: {about}")
