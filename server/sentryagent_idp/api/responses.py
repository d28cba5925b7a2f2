"""The forms of answers that resources share."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Response, jsonify

from sentryagent_idp.ports import Page

Item = TypeVar("Item")


def created(record: dict[str, Any], location: str) -> Response:
    """201 with the record and where it can be read."""
    response = jsonify(record)
    response.status_code = 201
    response.headers["Location"] = location
    return response


def listed(
    found: Page[Item], record: Callable[[Item], dict[str, Any]], page: int, limit: int
) -> dict[str, Any]:
    """One page of a list."""
    return {"data": [record(item) for item in found.data], "total": found.total, "page": page, "limit": limit}
