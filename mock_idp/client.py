"""The control API as `mock-idp env` and `mock-idp run` use it."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_SECONDS = 10.0


class MockUnavailableError(Exception):
    """No mock answers at the given URL."""


class JobRefusedError(Exception):
    """The mock refuses the options of a job; `field` is the JSON member."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


def start_job(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Start a job on the mock at `url`: `POST /_mock/jobs`.

    Raises MockUnavailableError, or JobRefusedError where an option is not acceptable.
    """
    status, body = _send(url, "POST", "/_mock/jobs", dict(options))
    if status == http.client.BAD_REQUEST and "details" in body:
        raise JobRefusedError(**body["details"])
    if status != http.client.CREATED:
        raise _unavailable(url)
    return body


def end_job(url: str, job_id: str) -> None:
    """End a job; its request token is expired from then on. Raises MockUnavailableError."""
    _send(url, "DELETE", f"/_mock/jobs/{job_id}")


def _unavailable(url: str) -> MockUnavailableError:
    return MockUnavailableError(
        f"no mock-idp answers at {url}; start one with `mock-idp serve`, or name another with --url or MOCK_IDP_URL"
    )


def _send(url: str, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """One request, never through a proxy: the mock is a neighbour. Raises MockUnavailableError."""
    try:
        parts = urlsplit(url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = make(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(
                method, parts.path.rstrip("/") + path, json.dumps(body) if body is not None else None
            )
            response = connection.getresponse()
            content = json.loads(response.read() or b"{}")
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _unavailable(url) from error
    return response.status, content if isinstance(content, dict) else {}
