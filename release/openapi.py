# noqa: INP001 - a script of the release, no package
"""Write docs/openapi.json, the document that the provider publishes, for reviews."""

import json
from pathlib import Path

from sentryagent_idp.api.openapi import document
from sentryagent_idp.app import bare_app

TARGET = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"


def text() -> str:
    """Return the document, formatted for reading."""
    return json.dumps(document(bare_app()), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), "utf-8")
