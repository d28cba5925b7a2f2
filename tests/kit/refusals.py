"""Checks of the provider's error responses."""

from typing import Any
from uuid import UUID


def assert_refused(
    answer: Any, status: int, code: str, details: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Assert that a response is a JSON error with this status, code and these details; return its body."""
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    assert answer.json.keys() == {"code", "message", "details", "requestId"}
    assert answer.json["requestId"] == answer.headers["X-Request-Id"]
    assert answer.json["message"].strip()
    if details is not None:
        assert answer.json["details"] == details
    return answer.json


def assert_invalid(answer: Any, field: str) -> str:
    """Assert that a response is a 400 that names this field; return its reason."""
    details = assert_refused(answer, 400, "VALIDATION_ERROR")["details"]
    assert details.keys() == {"field", "reason"}
    assert details["field"].partition(".")[0] == field, answer.text
    assert details["reason"]
    return details["reason"]


def assert_oauth_refused(answer: Any, status: int, error: str, code: str) -> dict[str, str]:
    """Assert that a response is an RFC 6749 error whose description starts with our code; return its body."""
    assert (answer.status_code, answer.json.get("error")) == (status, error), answer.text
    assert answer.json.keys() == {"error", "error_description"}
    assert answer.json["error_description"].startswith(f"{code}: ")
    assert UUID(answer.headers["X-Request-Id"])
    return answer.json
