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
    """The status, 0 where none came, the beginning of a refusal's body or the reason, and the time that it took in seconds."""

    status: int
    note: str
    seconds: float


@dataclass(frozen=True)
class Verifier:
    """Where tokens are sent, and how: `place` is `bearer`, `json` or `form`, `token_field` is the one that takes the token.

    `others` are the other fields of the body. The timeout of one request is in seconds.
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
            status, note = self._request(token)
        except (OSError, http.client.HTTPException) as error:
            status, note = 0, f"no answer: {type(error).__name__} {error}"
        return VerifierResponse(status, " ".join(note.split())[:_NOTE_LENGTH], time.monotonic() - started)

    def _request(self, token: str) -> tuple[int, str]:
        parts = urlsplit(self.url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = make(parts.hostname or "", parts.port, timeout=self.timeout)
        body, headers = self._message(token)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        method = self.method or ("GET" if self.place == "bearer" else "POST")
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            text = response.read(_RESPONSE_BYTES).decode("utf-8", "replace")
        except ValueError as error:
            # http.client keeps line breaks out of headers: they cannot be sent.
            raise UnsendableError(str(error)) from error
        finally:
            connection.close()
        # A yes may carry a token of the verifier's, which belongs in no report.
        return response.status, "" if response.status < _FIRST_REDIRECT else text

    def _message(self, token: str) -> tuple[str | None, dict[str, str]]:
        headers = {"Accept": "application/json", "User-Agent": "mock-idp attack", **self.headers}
        if self.place == "bearer":
            return None, headers | {"Authorization": f"Bearer {token}"}
        values = {**self.others, self.token_field: token}
        if self.place == "json":
            return json.dumps(values), headers | {"Content-Type": "application/json"}
        return urlencode(values), headers | {"Content-Type": "application/x-www-form-urlencoded"}
