"""What every refusal of the provider's API looks like."""

from typing import Any
from uuid import UUID


def assert_refused(
    answer: Any, status: int, code: str, details: dict[str, Any] | None = None
) -> dict[str, Any]:
    """An answer is a refusal in the JSON shape, with this status, code and these details; returns it."""
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    assert answer.json.keys() == {"code", "message", "details", "requestId"}
    assert answer.json["requestId"] == answer.headers["X-Request-Id"]
    assert answer.json["message"].strip()
    if details is not None:
        assert answer.json["details"] == details
    return answer.json


def assert_invalid(answer: Any, field: str) -> str:
    """An answer is a 400 that names this field, with a reason; returns that."""
    details = assert_refused(answer, 400, "VALIDATION_ERROR")["details"]
    assert details.keys() == {"field", "reason"}
    assert details["field"].partition(".")[0] == field, answer.text
    assert details["reason"]
    return details["reason"]


def assert_oauth_refused(answer: Any, status: int, error: str, code: str) -> dict[str, str]:
    """An answer is a refusal in RFC 6749's shape, whose description starts with our code; returns it."""
    assert (answer.status_code, answer.json.get("error")) == (status, error), answer.text
    assert answer.json.keys() == {"error", "error_description"}
    assert answer.json["error_description"].startswith(f"{code}: ")
    assert UUID(answer.headers["X-Request-Id"])
    return answer.json
