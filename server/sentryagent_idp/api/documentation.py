"""`/openapi.json`, and `/docs`, the same document as one HTML page without scripts or resources of other hosts."""

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
    """Get this document (OpenAPI 3.1)."""
    return Response(_forms()[0], content_type=JSON)


@bp.get("/docs")
@Description(media_type="text/html", needs_database=False)
def docs() -> Response:
    """Get this document as an HTML page."""
    return Response(_forms()[1], content_type="text/html; charset=utf-8", headers=_POLICY)


@cache
def _forms() -> tuple[str, str]:
    """Render the document as JSON and as HTML, once: anyone may request them as often as they like."""
    api = document(current_app)
    page = render_template("docs.html", api=api, style=_STYLE, as_json=_as_json)
    return _as_json(api), page


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
