"""The log of requests to the mock, and assertions about it: the same in this process and over HTTP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

from mock_idp.job import CLAIMS_SUPPORTED, EVENTS, choices_of
from mock_idp.strict_fields import InvalidFieldError, nearest, require_known

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

ENDPOINTS: Final = ("token", "discovery", "jwks", "foreign-keys")
_OF_EVERY_REQUEST: Final = ("at", "method", "status")
_OF_A_TOKEN: Final = ("repository", "audience", "kid", *CLAIMS_SUPPORTED)
_INTEGERS: Final = ("status", "exp", "iat", "nbf")
_PROPERTY: Final = "repo_property_"
_VALUES: Final[Mapping[str, Collection[str]]] = {
    "method": ("GET", "HEAD"),
    "event_name": EVENTS,
    "ref_type": ("branch", "tag"),
    "ref_protected": ("true", "false"),
    "repository_visibility": choices_of("visibility"),
    "runner_environment": choices_of("runner_environment"),
}


class LoggedRequest(TypedDict):
    """One request. `status` is None if the connection was reset; `kid` and `claims` are those of the issued token."""

    at: str
    endpoint: str
    method: str
    status: int | None
    repository: str | None
    audience: str | None
    kid: NotRequired[str | None]
    claims: NotRequired[dict[str, Any]]


class LogOverflowError(Exception):
    """The log no longer has all requests (it keeps the last 10,000), so an assertion about them could be wrong."""

    def __init__(self, endpoint: str, number: int) -> None:
        super().__init__(
            f"{endpoint} received {number} requests, but the log no longer has all of them; call reset() earlier"
        )


@dataclass(frozen=True)
class Requests:
    """A selection of the logged requests; `what` describes it in assertion messages."""

    what: str
    entries: tuple[LoggedRequest, ...]
    whole_log: tuple[LoggedRequest, ...]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[LoggedRequest]:
        return iter(self.entries)

    def once(self) -> LoggedRequest:
        """Return the only request. Raises AssertionError if there are none or several."""
        return self.times(1)[0]

    def never(self) -> None:
        """Raise AssertionError if there are any requests."""
        self.times(0)

    def times(self, number: int) -> tuple[LoggedRequest, ...]:
        """Return all requests. Raises AssertionError, with the log, if there are more or fewer than `number`."""
        if len(self.entries) != number:
            lines = "".join(f"\n  {_line(entry)}" for entry in self.whole_log) or " nothing"
            raise AssertionError(
                f"{self.what}: expected {number}, found {len(self.entries)}. The log has:{lines}"
            )
        return self.entries


def _line(entry: LoggedRequest) -> str:
    shown = {"repository": entry["repository"], "audience": entry["audience"]}
    shown["sub"] = entry.get("claims", {}).get("sub")
    details = [f"{name}={value}" for name, value in shown.items() if value]
    return " ".join([entry["endpoint"], entry["method"], str(entry["status"] or "reset"), *details])


def _value(entry: LoggedRequest, name: str) -> Any:
    return entry.get(name, entry.get("claims", {}).get(name))


def _check_filter(endpoint: str, name: str, value: object) -> None:
    """Raise InvalidFieldError for a filter that no entry can match, because `.never()` would always pass."""
    names = (*_OF_EVERY_REQUEST, *(_OF_A_TOKEN if endpoint == "token" else ()))
    if name not in names and not (endpoint == "token" and name.startswith(_PROPERTY)):
        raise InvalidFieldError(
            name,
            f"is not logged for {endpoint}; allowed filters are {', '.join(names)}{nearest(name, names)}",
        )
    kind = int if name in _INTEGERS else str
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise InvalidFieldError(name, f"must be {'an integer' if kind is int else 'a string'}")
    if name in _VALUES and isinstance(value, str):
        require_known(name, value, _VALUES[name])


class RequestLog(ABC):
    """Queries of the request log; a subclass implements `requests` and `request_counts`."""

    @abstractmethod
    def requests(self) -> list[LoggedRequest]:
        """Return the logged requests, oldest first; the log keeps the last 10,000."""

    @abstractmethod
    def request_counts(self) -> Mapping[str, int]:
        """Return the number of requests to each endpoint since the log was emptied; one without any may be missing."""

    def asked(self, endpoint: str, **fields: Any) -> Requests:
        """Return the requests to an endpoint (`token`, `discovery`, `jwks`, `foreign-keys`) that have these fields.

        A field of a token may be a claim: `asked("token", environment="production")`; None selects tokens without it.
        Raises InvalidFieldError for an endpoint or a field that no entry can have, LogOverflowError if the log no
        longer has all requests to the endpoint.
        """
        require_known("endpoint", endpoint, ENDPOINTS)
        for name, value in fields.items():
            _check_filter(endpoint, name, value)
        number, log = self.request_counts().get(endpoint, 0), tuple(self.requests())
        if number > sum(entry["endpoint"] == endpoint for entry in log):
            raise LogOverflowError(endpoint, number)
        found = tuple(
            entry
            for entry in log
            if entry["endpoint"] == endpoint and all(_value(entry, name) == it for name, it in fields.items())
        )
        conditions = "".join(f", {name} {value!r}" for name, value in fields.items())
        return Requests(f"requests for {endpoint}{conditions}", found, log)

    def minted(self, **fields: Any) -> Requests:
        """Return the requests by which jobs got an ID token, for example `minted(environment="production").once()`.

        Tokens that the test itself creates with `mint` are not among them.
        """
        return self.asked("token", **{"status": 200, **fields})

    @property
    def jwks_fetches(self) -> int:
        """The number of requests for the key set."""
        return self.request_counts().get("jwks", 0)

    @property
    def discovery_fetches(self) -> int:
        """The number of requests for the discovery document."""
        return self.request_counts().get("discovery", 0)
