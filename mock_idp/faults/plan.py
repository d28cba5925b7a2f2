"""What endpoints are told to do wrong, how often, and by which dice. Not thread-safe: the issuer holds the lock."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedFault:
    """What an endpoint does wrong, `times` times or, without it, until it is cleared. `delay` is in seconds.

    `rate` is the share of requests that it happens to; `seed` makes the same requests suffer in every run.
    """

    endpoint: str
    status: int | None = None
    fault: str = ""
    delay: float = 0.0
    times: int | None = None
    rate: float = 1.0
    seed: int = 0


class _Entry:
    def __init__(self, fault: PlannedFault) -> None:
        self.fault = fault
        self.left = fault.times
        self._dice = random.Random(fault.seed)  # noqa: S311 (repeatable on purpose; nothing secret depends on it)

    def happens(self) -> bool:
        return self._dice.random() < self.fault.rate


class FaultPlan:
    """The planned faults of all endpoints."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def add(self, fault: PlannedFault) -> None:
        """Counted faults of one endpoint happen one after the other; one without end gives way to the next."""
        self._entries = [
            entry
            for entry in self._entries
            if entry.fault.endpoint != fault.endpoint or entry.left is not None
        ]
        self._entries.append(_Entry(fault))

    def next(self, endpoint: str) -> PlannedFault | None:
        """The fault of the request that has just come in; only one that happens is counted."""
        entry = next((entry for entry in self._entries if entry.fault.endpoint == endpoint), None)
        if entry is None or not entry.happens():
            return None
        if entry.left is not None:
            entry.left -= 1
            if not entry.left:
                self._entries.remove(entry)
        return entry.fault

    def pending(self) -> list[tuple[PlannedFault, int | None]]:
        """The faults that are still to come and how often; None: until cleared."""
        return [(entry.fault, entry.left) for entry in self._entries]

    def clear(self) -> None:
        """Behave again."""
        self._entries = []
