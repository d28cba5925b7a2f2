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
    """The token has characters that this way of sending cannot carry, such as a line break in a header."""


@dataclass(frozen=True)
class VerifierResponse:
    """The status, 0 where none came, the beginning of a refusal's body or the reason, and the time that it took in seconds.

    `answer` is the body of a 2xx as JSON, None where it is not JSON; it may carry a token and is never shown.
    """

    status: int
    note: str
    seconds: float
    answer: object = field(default=None, repr=False)


def member_of(answer: object, path: str) -> object:
    """The field of a JSON object that names joined by dots lead to; None where there is none."""
    for name in path.split("."):
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


@dataclass(frozen=True)
class Verifier:
    """Where tokens are sent, and how: `place` is `bearer`, `header`, `query`, `json` or `form`.

    `token_field` takes the token: the name of a header or parameter, or of a field of the body; in JSON, dots lead to a
    nested one. `others` are the other fields of the body or query. The timeout of one request is in seconds.
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
        """Whether the URL names loopback; a name other than localhost may point anywhere."""
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
            status, body = 0, f"no answer: {type(error).__name__} {error}"
        seconds = time.monotonic() - started
        if 0 < status < _FIRST_REDIRECT:
            # A yes may carry a token of the verifier's, which belongs in no report.
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
            # A server may refuse a long header before it has read all of it: its answer is there to be read.
            return
        except ValueError as error:
            # http.client keeps line breaks out of headers, and spaces out of URLs: they cannot be sent.
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
    """The body `{a: {b: token}}` for the path `a.b`, with the other fields."""
    first, *rest = path.split(".")
    value: object = token
    for name in reversed(rest):
        value = {name: value}
    return {**others, first: value}


def _body(response: http.client.HTTPResponse) -> str:
    try:
        return response.read(_RESPONSE_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        # The status is the verdict, also if the connection breaks behind it.
        return ""


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
