"""`GET /_mock/`: the mock's state, and forms for the most common uses of the control API.

The only script copies text; everything else works without it. Nothing is loaded from another host.
"""

from __future__ import annotations

import base64
import json
import math
import secrets
from typing import TYPE_CHECKING, Any, Final
from wsgiref.util import application_uri

from flask import Blueprint, Response, make_response, redirect, render_template, request

from mock_idp.environment import FORMATS
from mock_idp.faults.plan import fault_names, read_planned_fault
from mock_idp.faults.tokens import TOKEN_FAULTS
from mock_idp.job import read_job
from mock_idp.strict_fields import InvalidFieldError, require_known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from werkzeug.wrappers import Response as AnyResponse

    from mock_idp.issuer import Issuer
    from mock_idp.job import Job

    Form = Mapping[str, str]

_JOB_FIELDS: Final = ("repository", "ref", "event", "environment")
_SHOWN_REQUESTS: Final = 20
_ENDPOINTS: Final = ("token", "discovery", "jwks")
_POLICY: Final = (
    "default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def add_page(routes: Blueprint, issuer: Issuer, state: Callable[[], Mapping[str, Any]]) -> None:
    """Add the page to the control API's routes; `state` is the response of `GET /_mock/state`."""

    def page(status: int = 200, **shown: Any) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = render_template(
            "page.html",
            nonce=nonce,
            state=state(),
            requests=issuer.requests()[-_SHOWN_REQUESTS:][::-1],
            faults=TOKEN_FAULTS,
            faults_of={endpoint: fault_names(endpoint) for endpoint in _ENDPOINTS},
            form=request.form,
            **shown,
        )
        response = make_response(text, status)
        response.headers |= {
            "Content-Security-Policy": _POLICY.format(nonce),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return response

    @routes.get("/")
    def show_page() -> Response:
        return page()

    @routes.post("/")
    def act() -> AnyResponse:
        verb = request.form.get("do", "mint")
        try:
            if verb == "mint":
                token = _mint(issuer, request.form)
                return page(token=token, parts=_parts(token))
            if verb == "job":
                return page(variables=_start_job(issuer, request.form))
            require_known("do", verb, _CHANGES)
            _CHANGES[verb](issuer, request.form)
        except InvalidFieldError as error:
            return page(400, problem=str(error))
        # Reloading the page must not repeat an action such as a key rotation.
        return redirect("./", 303)


def _job(form: Form) -> Job:
    fields: dict[str, Any] = {name: form[name] for name in _JOB_FIELDS if form.get(name)}
    return read_job(fields | {"immutableSub": "immutableSub" in form})


def _mint(issuer: Issuer, form: Form) -> str:
    fault = form.get("fault", "")
    if fault not in {"", *TOKEN_FAULTS}:
        raise InvalidFieldError("fault", "is not in the list")
    return issuer.mint(_job(form), audience=form.get("audience"), fault=fault)


def _start_job(issuer: Issuer, form: Form) -> str:
    """Start a job and return its variables for a shell."""
    started = issuer.start_job(_job(form))
    return FORMATS["sh"](
        started.describe(application_uri(request.environ).rstrip("/"), issuer.url)["variables"]
    )


def _end_job(issuer: Issuer, form: Form) -> None:
    issuer.end_job(form.get("jobId", ""))


def _plan_fault(issuer: Issuer, form: Form) -> None:
    fields: dict[str, Any] = {"endpoint": form.get("endpoint", "")}
    fields |= {"fault": form["plannedFault"]} if form.get("plannedFault") else {}
    fields |= {name: _number(form, name) for name in ("status", "delay", "times") if form.get(name)}
    issuer.plan_fault(read_planned_fault(fields))


def _number(form: Form, name: str) -> float:
    """Read a number from the form, as an int if it is whole."""
    try:
        number = float(form.get(name, ""))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidFieldError(name, "must be a number")
    return int(number) if number.is_integer() else number


def _shift(issuer: Issuer, form: Form) -> None:
    issuer.clock.shift(_number(form, "offset"))


_CHANGES: Final[Mapping[str, Callable[[Issuer, Form], object]]] = {
    "end-job": _end_job,
    "plan-fault": _plan_fault,
    "clear-faults": lambda issuer, _form: issuer.clear_faults(),
    "shift": _shift,
    "freeze": lambda issuer, _form: issuer.clock.freeze(issuer.clock.now()),
    "real-time": lambda issuer, _form: issuer.clock.shift(0),
    "rotate": lambda issuer, _form: issuer.rotate(),
    "rotate-hidden": lambda issuer, _form: issuer.rotate(publish=False),
    "publish": lambda issuer, _form: issuer.publish(),
    "retire": lambda issuer, _form: issuer.retire(),
    "reset": lambda issuer, _form: issuer.reset(),
}


def _parts(token: str) -> list[str]:
    """Return header and payload in readable form; a forged part that is not JSON is left as it is."""
    return [_readable(part) for part in token.split(".")[:2]]


def _readable(part: str) -> str:
    try:
        text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("utf-8", "replace")
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return part
