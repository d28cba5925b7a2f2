"""The verifier under attack: one HTTP request for each token, and nothing else."""

from __future__ import annotations

import http.client
import ipaddress
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTE_LENGTH: Final = 300
_FIRST_REDIRECT: Final = 300
_RESPONSE_BYTES: Final = 64 << 10


class UnsendableError(Exception):
    """The token contains characters that cannot be sent in this place, such as a line break in a header."""


@dataclass(frozen=True)
class VerifierResponse:
    """A verifier's response: the status (0 if there was none), a note, and the duration in seconds.

    `note` is the beginning of a refusal's body, or the reason for a missing response. `answer` is the JSON body of a
    2xx, None if it is not JSON; it may contain a token and is never shown.
    """

    status: int
    note: str
    seconds: float
    answer: object = field(default=None, repr=False)


def field_at(answer: object, path: str) -> object:
    """Return the field of a JSON object at `path`, names joined by dots; None if there is no such field."""
    for name in path.split("."):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


@dataclass(frozen=True)
class Verifier:
    """Where and how tokens are sent: `place` is `bearer`, `header`, `query`, `json` or `form`.

    `token_field` is the header, parameter or body field for the token; in JSON, dots lead to a nested field. `others`
    are the other fields of the body or query. `timeout` is in seconds, for one request.
    """

    url: str
    place: str
    token_field: str = ""
    others: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = ""
    timeout: float = 10.0

    @property
    def is_on_this_machine(self) -> bool:
        """Whether the URL's host is localhost or a loopback address; any other name may point anywhere."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def send(self, token: str) -> VerifierResponse:
        """Send one token; redirects are not followed. Raises UnsendableError."""
        started = time.monotonic()
        try:
            status, body = self._request(token)
        except (OSError, http.client.HTTPException) as error:
            status, body = 0, f"no response: {type(error).__name__} {error}"
        seconds = time.monotonic() - started
        if 0 < status < _FIRST_REDIRECT:
            # An acceptance may contain a token issued by the verifier, which must not appear in a report.
            return VerifierResponse(status, "", seconds, _json(body))
        return VerifierResponse(status, " ".join(body.split())[:_NOTE_LENGTH], seconds)

    def _request(self, token: str) -> tuple[int, str]:
        parts = urlsplit(self.url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = make(parts.hostname or "", parts.port, timeout=self.timeout)
        try:
            self._write(connection, token)
            response = connection.getresponse()
            return response.status, _body(response)
        finally:
            connection.close()

    def _write(self, connection: http.client.HTTPConnection, token: str) -> None:
        body, headers = self._message(token)
        try:
            connection.request(self.method or self._usual_method, self._target(token), body, headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server may refuse a long header before it has read all of it; its response can still be read.
            return
        except ValueError as error:
            # http.client refuses line breaks in headers and spaces in URLs, so such tokens cannot be sent.
            raise UnsendableError(str(error)) from error

    @property
    def _usual_method(self) -> str:
        return "POST" if self.place in {"json", "form"} else "GET"

    def _target(self, token: str) -> str:
        parts = urlsplit(self.url)
        query = [parts.query] if parts.query else []
        if self.place == "query":
            query.append(urlencode({**self.others, self.token_field: token}))
        return (parts.path or "/") + (f"?{'&'.join(query)}" if query else "")

    def _message(self, token: str) -> tuple[str | None, dict[str, str]]:
        headers = {"Accept": "application/json", "User-Agent": "mock-idp attack", **self.headers}
        if self.place == "query":
            return None, headers
        if self.place in {"bearer", "header"}:
            field, value = (
                ("Authorization", f"Bearer {token}") if self.place == "bearer" else (self.token_field, token)
            )
            return None, headers | {field: value}
        if self.place == "json":
            values = _nested(self.others, self.token_field, token)
            return json.dumps(values), headers | {"Content-Type": "application/json"}
        form = urlencode({**self.others, self.token_field: token})
        return form, headers | {"Content-Type": "application/x-www-form-urlencoded"}


def _nested(others: Mapping[str, Any], path: str, token: str) -> dict[str, Any]:
    """Return the body `{a: {b: token}}` for the path `a.b`, with the other fields."""
    first, *rest = path.split(".")
    value: object = token
    for name in reversed(rest):
        value = {name: value}
    return {**others, first: value}


def _body(response: http.client.HTTPResponse) -> str:
    try:
        return response.read(_RESPONSE_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        # The status decides, even if the connection breaks after it.
        return ""


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
