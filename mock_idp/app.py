"""GitHub's OIDC endpoints over HTTP, with the planned faults applied."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from flask import Flask, Response, request

from mock_idp import control
from mock_idp.faults import ANSWER_FAULTS, DISCOVERY_FAULTS, KEY_SET_FAULTS, TOKEN_FAULTS, Answer, json_answer
from mock_idp.github import default_audience, discovery_document, is_audience_issuable
from mock_idp.issuer import API_VERSION, RUN_SERVICE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mock_idp.issuer import Issuer, StartedJob

_RESET: Final = "mock_idp.reset"


class ConnectionToResetError(ConnectionResetError):
    """The planned fault `reset`: whoever serves the app drops the connection without an answer."""


def create_app(issuer: Issuer) -> Flask:
    """The WSGI application over one issuer's state."""
    app = Flask(__name__, static_folder=None)
    # The request URL has a double slash, as GitHub's has: a client that normalises it must notice.
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it; the base class does not
    for prefix in {"", urlsplit(issuer.url).path.rstrip("/")}:
        _add_documents(app, issuer, prefix)
    _add_request_endpoint(app, issuer)
    app.register_blueprint(control.blueprint(issuer))
    control.add_error_handlers(app)
    app.wsgi_app = _raising_resets(app.wsgi_app)  # type: ignore[method-assign, assignment]  # Flask documents this very assignment
    return app


def _raising_resets(inner: WSGIApplication) -> WSGIApplication:
    def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Flask would turn an exception of a view into a 500, so the view leaves a mark instead.
        body = inner(environ, start_response)
        if environ.get(_RESET):
            raise ConnectionToResetError
        return body

    return wsgi


def _add_documents(app: Flask, issuer: Issuer, prefix: str) -> None:
    name = prefix or "root"

    def discovery(fault: str) -> Answer:
        spoil = DISCOVERY_FAULTS.get(fault, dict)
        return json_answer(spoil(discovery_document(issuer.url)))

    def jwks(fault: str) -> Answer:
        keys = issuer.ring.key_set()
        return json_answer(
            KEY_SET_FAULTS[fault](keys, issuer.other_key()) if fault in KEY_SET_FAULTS else keys
        )

    app.add_url_rule(
        f"{prefix}/.well-known/openid-configuration",
        f"discovery {name}",
        lambda: _respond(issuer, "discovery", discovery),
    )
    app.add_url_rule(f"{prefix}/.well-known/jwks", f"jwks {name}", lambda: _respond(issuer, "jwks", jwks))


def _add_request_endpoint(app: Flask, issuer: Issuer) -> None:
    def id_token(service: int, slashes: str, rest: str) -> Response:
        well_formed = f"/{service}{slashes}idtoken" == RUN_SERVICE_PATH
        started = issuer.job_of(_bearer())
        audience = request.args.get("audience") or (
            default_audience(started.job, issuer.url) if started else ""
        )
        return _respond(
            issuer,
            "token",
            lambda fault: _id_token(issuer, started, rest if well_formed else "", audience, fault),
            started.job.repository if started else "",
            audience,
        )

    for slashes in ("//", "/"):
        app.add_url_rule(
            f"/<int:service>{slashes}idtoken/<path:rest>",
            f"token {slashes}",
            id_token,
            defaults={"slashes": slashes},
        )


def _bearer() -> str:
    scheme = re.fullmatch(r"bearer +(\S+)", request.headers.get("Authorization", ""), re.IGNORECASE)
    return scheme[1] if scheme else ""


def _refusal(status: int, message: str) -> Answer:
    return json_answer(
        {"source": "actions-run-service", "statusCode": status, "errorMessage": message}, status
    )


def _id_token(issuer: Issuer, started: StartedJob | None, rest: str, audience: str, fault: str) -> Answer:
    if started is None:
        ended = issuer.is_ended(_bearer())
        message = "token has invalid claims: token is expired" if ended else "Not authorized for this job"
        return _refusal(401, message)
    if not (_is_readable(started, rest) and started.job.may_request_id_token):
        return _refusal(403, "runner does not have permissions to generate id token")
    if not is_audience_issuable(audience, started.job) and request.args.get("audience"):
        return _refusal(400, f"Can't issue ID_TOKEN for audience '{audience}'")
    token = issuer.mint(started.job, audience=audience, fault=fault if fault in TOKEN_FAULTS else "")
    return json_answer({"count": len(token), "value": token})


def _is_readable(started: StartedJob, rest: str) -> bool:
    """Whether the request is for this very job and its query survived the client: each parameter once, no others."""
    query = request.args.to_dict(flat=False)
    return (
        rest.removesuffix("/") == f"{started.plan_id}/{started.job_id}"
        and query.pop("api-version", None) == [API_VERSION]
        and len(query.pop("audience", [""])) == 1
        and not query
    )


def _respond(
    issuer: Issuer, endpoint: str, make: Callable[[str], Answer], repository: str = "", audience: str = ""
) -> Response:
    """Answer as planned: late, with another status, spoilt; or as GitHub does."""
    planned = issuer.next_fault(endpoint)
    if planned is None:
        answer = make("")
    else:
        time.sleep(planned.delay)
        answer = make(planned.fault) if planned.status is None else _refusal(planned.status, "planned fault")
        answer = ANSWER_FAULTS.get(planned.fault, _unchanged)(answer)
    issuer.record(endpoint, request.method, None if answer.reset else answer.status, repository, audience)
    return _to_response(answer)


def _unchanged(answer: Answer) -> Answer:
    return answer


def _to_response(answer: Answer) -> Response:
    headers: dict[str, Any] = {"Content-Type": answer.content_type}
    if answer.redirect:
        headers["Location"] = request.url
    if answer.reset:
        request.environ[_RESET] = True
    body = answer.body
    if answer.cut:
        headers["Content-Length"] = str(len(body))
        body = body[: len(body) // 2]
    return Response(body, answer.status, headers)
