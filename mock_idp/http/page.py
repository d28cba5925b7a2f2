"""`GET /_mock/`: the mock's state at a glance, and a form that mints a token. No script, nothing from another host."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, make_response, render_template, request

from mock_idp.faults.tokens import TOKEN_FAULTS
from mock_idp.job import read_job
from mock_idp.strict_fields import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mock_idp.issuer import Issuer

_JOB_FIELDS: Final = ("repository", "ref", "event", "environment")
_SHOWN_REQUESTS: Final = 20


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
            form=request.form,
            **shown,
        )
        response = make_response(text, status)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        response.headers |= {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return response

    @routes.get("/")
    def show_page() -> Response:
        return page()

    @routes.post("/")
    def mint_on_page() -> Response:
        try:
            token = _mint(issuer, request.form)
        except InvalidFieldError as error:
            return page(400, problem=str(error))
        return page(token=token, parts=_parts(token))


def _mint(issuer: Issuer, form: Mapping[str, str]) -> str:
    fields: dict[str, Any] = {name: form[name] for name in _JOB_FIELDS if form.get(name)}
    fault = form.get("fault", "")
    if fault not in {"", *TOKEN_FAULTS}:
        raise InvalidFieldError("fault", "is not in the list")
    job = read_job(fields | {"immutableSub": "immutableSub" in form})
    return issuer.mint(job, audience=form.get("audience"), fault=fault)


def _parts(token: str) -> list[str]:
    """Header and payload for reading; a forged part that is not JSON is shown as it is."""
    return [_readable(part) for part in token.split(".")[:2]]


def _readable(part: str) -> str:
    try:
        text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("utf-8", "replace")
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return part
