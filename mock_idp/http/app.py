"""GitHub's OIDC endpoints over HTTP, with the planned faults applied."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from wsgiref.util import request_uri

from flask import Flask, Response, request

from mock_idp.claims import default_audience, discovery_document, is_audience_issuable
from mock_idp.faults.documents import DISCOVERY_FAULTS, KEY_SET_FAULTS
from mock_idp.faults.responses import ERROR_STATUS, RESPONSE_FAULTS, RawResponse, json_response
from mock_idp.faults.tokens import TOKEN_FAULTS
from mock_idp.http import control
from mock_idp.http.wsgi_server import ConnectionToResetError
from mock_idp.issuer import API_VERSION, FOREIGN_KEYS_PATH, RUN_SERVICE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mock_idp.faults.plan import PlannedFault
    from mock_idp.issuer import Issuer, StartedJob
    from mock_idp.job import Job

_RESET: Final = "mock_idp.reset"


def create_app(
    issuer: Issuer,
    sleep: Callable[[float], None] = time.sleep,
    others: control.Others | None = None,
    names: Collection[str] = (),
) -> Flask:
    """Create the WSGI application of one issuer; `sleep` waits for the seconds of a planned delay.

    `others` are the issuers below paths of their own, for a server's first issuer. `names` are hosts under which a
    browser may control the mock, in addition to addresses and private names.
    """
    app = Flask(__name__, static_folder=None)
    # The request URL has a double slash like GitHub's; a client that normalises it must get an error.
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it; the base class does not
    endpoints = _Endpoints(issuer, sleep)
    for prefix in {"", urlsplit(issuer.url).path.rstrip("/")}:
        app.add_url_rule(
            f"{prefix}/.well-known/openid-configuration", f"discovery {prefix}", endpoints.discovery
        )
        app.add_url_rule(f"{prefix}/.well-known/jwks", f"jwks {prefix}", endpoints.jwks)
    for slashes in ("//", "/"):
        rule = f"/<int:service>{slashes}idtoken/<path:rest>"
        app.add_url_rule(rule, f"token {slashes}", endpoints.token, defaults={"slashes": slashes})
    app.add_url_rule(FOREIGN_KEYS_PATH, "foreign keys", endpoints.foreign_keys)
    app.register_blueprint(control.blueprint(issuer, names, others))
    control.add_error_handlers(app)
    app.wsgi_app = _raising_resets(app.wsgi_app)  # type: ignore[method-assign, assignment]  # Flask documents this very assignment
    return app


def _raising_resets(inner: WSGIApplication) -> WSGIApplication:
    def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Flask would turn an exception of a view into a 500, so the view sets a flag instead.
        body = inner(environ, start_response)
        if environ.get(_RESET):
            raise ConnectionToResetError
        return body

    return wsgi


class _Endpoints:
    """GitHub's endpoints: discovery document, key set, and the ID token request endpoint of the run service."""

    def __init__(self, issuer: Issuer, sleep: Callable[[float], None]) -> None:
        self._issuer = issuer
        self._sleep = sleep

    def discovery(self) -> Response:
        document = discovery_document(self._issuer.url)
        return self._respond(
            "discovery", lambda fault: json_response(DISCOVERY_FAULTS.get(fault, dict)(document))
        )

    def jwks(self) -> Response:
        keys = self._issuer.ring.key_set()
        return self._respond(
            "jwks",
            lambda fault: json_response(
                KEY_SET_FAULTS[fault](keys, self._issuer.other_key()) if fault in KEY_SET_FAULTS else keys
            ),
        )

    def foreign_keys(self) -> Response:
        """Serve the foreign key set that forged headers point to; the log then shows that a verifier fetched it."""
        return self._respond(
            "foreign-keys", lambda _fault: json_response({"keys": [self._issuer.other_key().jwk()]})
        )

    def token(self, service: int, slashes: str, rest: str) -> Response:
        well_formed = f"/{service}{slashes}idtoken" == RUN_SERVICE_PATH
        started = self._issuer.job_of(_bearer())
        if started is None:
            return self._respond("token", lambda _fault: self._unauthorized())
        job, requested = started.job, request.args.get("audience", "")
        if not (well_formed and _is_readable(started, rest) and job.may_request_id_token):
            refusal = _refusal(403, "runner does not have permissions to generate id token")
        elif not is_audience_issuable(requested, job):
            refusal = _refusal(400, f"Can't issue ID_TOKEN for audience '{requested}'")
        else:
            refusal = None
        audience = requested or default_audience(job, self._issuer.url)
        return self._respond(
            "token", lambda fault: refusal or self._id_token(job, audience, fault), job.repository, audience
        )

    def _unauthorized(self) -> RawResponse:
        ended = self._issuer.is_ended(_bearer())
        return _refusal(
            401, "token has invalid claims: token is expired" if ended else "Not authorized for this job"
        )

    def _id_token(self, job: Job, audience: str, fault: str) -> RawResponse:
        minted = self._issuer.sign(job, audience=audience, fault=fault if fault in TOKEN_FAULTS else "")
        response = json_response({"count": len(minted.token), "value": minted.token})
        return replace(response, minted=minted)

    def _respond(
        self, endpoint: str, make: Callable[[str], RawResponse], repository: str = "", audience: str = ""
    ) -> Response:
        """Respond as GitHub does or as planned: late, with another status, or with a fault."""
        planned = self._issuer.next_fault(endpoint)
        response = make(planned.fault if planned else "")
        if planned:
            self._sleep(planned.delay)
            response = _planned_response(response, planned)
        status = None if response.reset else response.status
        self._issuer.record(endpoint, request.method, status, repository, audience, response.minted)
        return _to_response(response)


def _planned_response(response: RawResponse, planned: PlannedFault) -> RawResponse:
    if planned.status is not None and planned.status >= ERROR_STATUS:
        response = _refusal(planned.status, "planned fault of mock-idp")
    elif planned.status is not None:
        response = replace(response, status=planned.status)
    return RESPONSE_FAULTS[planned.fault](response) if planned.fault in RESPONSE_FAULTS else response


def _bearer() -> str:
    """Return the request token; the scheme is case-insensitive (RFC 9110, section 11.1)."""
    scheme = re.fullmatch(r"bearer +(\S+)", request.headers.get("Authorization", ""), re.IGNORECASE)
    return scheme[1] if scheme else ""


def _refusal(status: int, message: str) -> RawResponse:
    body = {"source": "actions-run-service", "statusCode": status, "errorMessage": message}
    return json_response(body, status)


def _is_readable(started: StartedJob, rest: str) -> bool:
    """Whether the request is for this job and the client kept its query intact: each parameter once, no others."""
    query = request.args.to_dict(flat=False)
    return (
        rest.removesuffix("/") == f"{started.plan_id}/{started.job_id}"
        and query.pop("api-version", None) == [API_VERSION]
        and len(query.pop("audience", [""])) == 1
        and not query
    )


def _to_response(raw: RawResponse) -> Response:
    request.environ[_RESET] = raw.reset
    response = Response(raw.body, raw.status, content_type=raw.content_type)
    if raw.redirect:
        response.headers["Location"] = request_uri(request.environ)
    if raw.cut:
        # Werkzeug would correct the length to that of the body sent.
        response.automatically_set_content_length = False
        response.set_data(raw.body[: len(raw.body) // 2])
        response.headers["Content-Length"] = str(len(raw.body))
    return response
