"""Which endpoint fails, how, how often and with which probability. Not thread-safe: the issuer holds the lock."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mock_idp.faults.documents import DISCOVERY_FAULTS, KEY_SET_FAULTS
from mock_idp.faults.responses import ERROR_STATUS, RESPONSE_FAULTS
from mock_idp.faults.tokens import TOKEN_FAULTS
from mock_idp.strict_fields import InvalidFieldError, read_fields, require_known

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_DELAY_SECONDS: Final = 600
_FIELDS: Final = {
    "endpoint": "a string",
    "status": "a positive integer",
    "fault": "a string",
    "delay": "a number",
    "times": "a positive integer",
    "rate": "a number",
    "seed": "a number",
}
_FAULTS_OF: Final[Mapping[str, Mapping[str, object]]] = {
    "token": TOKEN_FAULTS,
    "discovery": DISCOVERY_FAULTS,
    "jwks": KEY_SET_FAULTS,
}


def fault_names(endpoint: str) -> tuple[str, ...]:
    """Return the faults of an endpoint (`token`, `discovery`, `jwks`), those of every response first."""
    return (*RESPONSE_FAULTS, *_FAULTS_OF[endpoint])


@dataclass(frozen=True)
class PlannedFault:
    """A planned fault of an endpoint; it happens `times` times or, if None, until cleared. `delay` is in seconds.

    `rate` is the share of requests that are affected; `seed` selects the same requests in every run.
    """

    endpoint: str
    status: int | None = None
    fault: str = ""
    delay: float = 0.0
    times: int | None = None
    rate: float = 1.0
    seed: int = 0


def read_planned_fault(body: object) -> PlannedFault:
    """Read a planned fault from its JSON fields. Raises InvalidFieldError."""
    fields = read_fields(body, _FIELDS)
    endpoint = fields.get("endpoint", "")
    require_known("endpoint", endpoint, _FAULTS_OF)
    require_known("fault", fields.get("fault"), fault_names(endpoint))
    if not 200 <= fields.get("status", 200) <= 599:
        raise InvalidFieldError("status", "must be an HTTP status from 200 to 599")
    if not 0 <= fields.get("delay", 0) <= _MAX_DELAY_SECONDS:
        raise InvalidFieldError("delay", f"must be from 0 to {_MAX_DELAY_SECONDS} seconds")
    if not 0 < fields.get("rate", 1) <= 1:
        raise InvalidFieldError("rate", "must be greater than 0 and at most 1")
    if fields.get("status", 0) >= ERROR_STATUS and fields.get("fault", "") not in {"", *RESPONSE_FAULTS}:
        raise InvalidFieldError(
            "fault", "changes the document, which a response with an error status does not have"
        )
    if not fields.keys() & {"status", "fault", "delay"}:
        raise InvalidFieldError("fault", "is missing; set `status`, `fault` or `delay`")
    return PlannedFault(**fields)


class _ScheduledFault:
    def __init__(self, fault: PlannedFault) -> None:
        self.fault = fault
        self.left = fault.times
        self._random = random.Random(fault.seed)  # noqa: S311 (repeatable on purpose; nothing secret depends on it)

    def happens(self) -> bool:
        return self._random.random() < self.fault.rate


class FaultPlan:
    """The planned faults of all endpoints."""

    def __init__(self) -> None:
        self._entries: list[_ScheduledFault] = []

    def add(self, fault: PlannedFault) -> None:
        """Add a fault. Counted faults of an endpoint happen in turn; one without a count is replaced by the next."""
        self._entries = [
            entry
            for entry in self._entries
            if entry.fault.endpoint != fault.endpoint or entry.left is not None
        ]
        self._entries.append(_ScheduledFault(fault))

    def next(self, endpoint: str) -> PlannedFault | None:
        """Return the fault for the request that has just arrived, or None; a fault that happens is counted."""
        entry = next((entry for entry in self._entries if entry.fault.endpoint == endpoint), None)
        if entry is None or not entry.happens():
            return None
        if entry.left is not None:
            entry.left -= 1
            if not entry.left:
                self._entries.remove(entry)
        return entry.fault

    def pending(self) -> list[tuple[PlannedFault, int | None]]:
        """Return the faults still to come with their remaining counts; None means until cleared."""
        return [(entry.fault, entry.left) for entry in self._entries]

    def clear(self) -> None:
        """Remove all planned faults."""
        self._entries = []
