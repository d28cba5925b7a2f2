"""What clients asked the mock for, and assertions about it: in this process and over HTTP alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Entry = dict[str, Any]


@dataclass(frozen=True)
class Requests:
    """Some of the logged requests; `what` describes them in the message of an assertion."""

    what: str
    entries: tuple[Entry, ...]
    whole_log: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def once(self) -> Entry:
        """The only one. Raises AssertionError where there are none or several."""
        return self.times(1)[0]

    def never(self) -> None:
        """Raises AssertionError where there are any."""
        self.times(0)

    def times(self, number: int) -> tuple[Entry, ...]:
        """All of them. Raises AssertionError, with the log, where their number is another one."""
        if len(self.entries) != number:
            lines = "".join(f"\n  {_line(entry)}" for entry in self.whole_log) or " nothing"
            raise AssertionError(
                f"{self.what}: {number} expected, {len(self.entries)} found. The log has:{lines}"
            )
        return self.entries


def _line(entry: Entry) -> str:
    details = [f"{name}={entry[name]}" for name in ("repository", "audience") if entry[name]]
    return " ".join([entry["endpoint"], entry["method"], str(entry["status"] or "reset"), *details])


class RequestLog(ABC):
    """Questions to the request log; a subclass implements `requests`."""

    @abstractmethod
    def requests(self) -> list[Entry]:
        """The logged requests, oldest first: `{at, endpoint, method, status, repository, audience}`."""

    def asked(self, endpoint: str, **fields: Any) -> Requests:
        """The requests to an endpoint (`token`, `discovery`, `jwks`) whose entries have these fields."""
        log = tuple(self.requests())
        wanted = {"endpoint": endpoint, **fields}
        found = tuple(entry for entry in log if wanted.items() <= entry.items())
        conditions = "".join(f", {name} {value!r}" for name, value in fields.items())
        return Requests(f"requests for {endpoint}{conditions}", found, log)

    def minted(self, **fields: Any) -> Requests:
        """The ID tokens that jobs were given, for example `minted(audience="https://id.example.com").once()`."""
        return self.asked("token", status=200, **fields)

    @property
    def jwks_fetches(self) -> int:
        """How often the key set was asked for."""
        return len(self.asked("jwks"))

    @property
    def discovery_fetches(self) -> int:
        """How often the discovery document was asked for."""
        return len(self.asked("discovery"))
