"""Fire the attack pack at a verifier, one attack after the other, within a time limit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mock_idp.attack.catalogue import CONTROL, NOT_SENT, Attack, Result
from mock_idp.attack.probes import PROBES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mock_idp.attack.target import Target


class ControlRefusedError(Exception):
    """The verifier does not accept a valid token, so refusals would mean nothing; `status` is 0 without a response."""

    def __init__(self, status: int, note: str) -> None:
        super().__init__(f"{status or ''} {note}".strip())
        self.status, self.note = status, note


def fire(
    target: Target,
    attacks: Iterable[Attack],
    time_limit: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Result]:
    """Fire the attacks one after the other; after `time_limit` seconds, measured by `monotonic`, none is sent.

    Raises ControlRefusedError if the control, the first attack, fails, and mock_idp.client.MockUnavailableError.
    """
    deadline = monotonic() + time_limit
    for attack in attacks:
        if monotonic() > deadline:
            yield Result(attack, NOT_SENT, 0, "the time limit was reached", 0.0)
            continue
        result = PROBES[attack.probe](target, attack) if attack.probe else target.fire(attack)
        if attack is CONTROL and not result.is_as_expected:
            raise ControlRefusedError(result.status, result.note)
        yield result
