"""`/openapi.json`, and `/docs`: the same document for people, in one page that needs no script and no other host."""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, render_template

from sentryagent_idp.api.description import Description
from sentryagent_idp.api.openapi import document
from sentryagent_idp.api.requests import JSON

bp = Blueprint("documentation", __name__, template_folder="templates")

_STYLE = (Path(__file__).parent / "templates" / "docs.css").read_text("utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
}


@bp.get("/openapi.json")
@Description(needs_database=False)
def openapi() -> Response:
    """This document (OpenAPI 3.1)."""
    return Response(_forms()[0], content_type=JSON)


@bp.get("/docs")
@Description(media_type="text/html", needs_database=False)
def docs() -> Response:
    """This document as a page for people."""
    return Response(_forms()[1], content_type="text/html; charset=utf-8", headers=_POLICY)


@cache
def _forms() -> tuple[str, str]:
    """The document as JSON and as a page: made once, since anybody may ask for them as often as they like."""
    api = document(current_app)
    page = render_template("docs.html", api=api, style=_STYLE, as_json=_as_json)
    return _as_json(api), page


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
