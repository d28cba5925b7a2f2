"""`/openapi.json`, and `/docs`: the same document for people, in one page that needs no script and no other host."""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, current_app, render_template

from sentryagent_idp.api.description import Description
from sentryagent_idp.api.openapi import Json, document
from sentryagent_idp.api.requests import JSON

bp = Blueprint("documentation", __name__, template_folder="templates")

_STYLE = (Path(__file__).parent / "templates" / "docs.css").read_text("utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@bp.get("/openapi.json")
@Description(needs_database=False)
def openapi() -> Response:
    """This document (OpenAPI 3.1)."""
    return Response(_json(_app()), content_type=JSON)


@bp.get("/docs")
@Description(media_type="text/html", needs_database=False)
def docs() -> Response:
    """This document as a page for people."""
    response = Response(_page(_app()), content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


def _app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001 - Flask's own way to the object behind the proxy


@cache
def _document(app: Flask) -> Json:
    """The document, and below its two forms: made once, since anybody may ask for them as often as they like."""
    return document(app)


@cache
def _json(app: Flask) -> str:
    return _as_json(_document(app))


@cache
def _page(app: Flask) -> str:
    return render_template("docs.html", api=_document(app), style=_STYLE, as_json=_as_json)


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
