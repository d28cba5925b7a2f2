"""Fires the attack pack: mints at a mock, sends to a verifier, judges, within a limit of time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mock_idp.attack.catalogue import (
    ACCEPTED,
    CONTROL,
    FOLLOWED,
    NOT_SENT,
    REFUSED,
    UNSENDABLE,
    Attack,
    Result,
    catalogue,
    verdict_of,
)
from mock_idp.attack.verifier import UnsendableError
from mock_idp.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from mock_idp.attack.verifier import Verifier
    from mock_idp.client import MockClient


class ControlRefusedError(Exception):
    """The verifier does not accept a right token, so refusals would mean nothing."""


class AttackRun:
    """One run against one verifier, for a job with these options (fields of `Job`) and this audience.

    `monotonic` counts the seconds of `time_limit`. Raises mock_idp.client.MockUnavailableError.
    """

    def __init__(
        self,
        mock: MockClient,
        verifier: Verifier,
        options: Mapping[str, Any],
        audience: str,
        time_limit: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mock = mock
        self._verifier = verifier
        self._options = options
        self._audience = audience
        self._monotonic = monotonic
        self._deadline = monotonic() + time_limit

    def results(self, attacks: Collection[Attack]) -> Iterator[Result]:
        """Judge one attack after the other. Raises ControlRefusedError where the first one, the control, fails."""
        for attack in attacks:
            if self._monotonic() > self._deadline:
                yield Result(attack, NOT_SENT, 0, "the time limit is over", 0.0)
                continue
            result = self._fire(attack)
            if attack is CONTROL and not result.is_as_expected:
                raise ControlRefusedError(f"{result.status or ''} {result.note}".strip())
            yield result
        yield self._followed()

    def _fire(self, attack: Attack) -> Result:
        token = self._mint(attack)
        try:
            response = self._verifier.send(token)
            if attack.replayed and verdict_of(response.status) != ACCEPTED:
                return Result(attack, NOT_SENT, response.status, "not even accepted once", response.seconds)
            if attack.replayed:
                response = self._verifier.send(token)
        except UnsendableError as error:
            return Result(attack, UNSENDABLE, 0, str(error), 0.0)
        return Result(attack, verdict_of(response.status), response.status, response.note, response.seconds)

    def _mint(self, attack: Attack) -> str:
        job = Job(**{**self._options, **attack.changes})
        return self._mock.mint(job=job, audience=self._audience or None, fault=attack.fault)

    def _followed(self) -> Result:
        fetches = len(self._mock.asked("foreign-keys"))
        note = f"such requests in the mock's log: {fetches}"
        return Result(FOLLOWED, "followed" if fetches else REFUSED, 0, note, 0.0)


def chosen(options: Mapping[str, Any], only: Collection[str], skip: Collection[str]) -> list[Attack]:
    """The attacks to fire, the controls always. Raises KeyError for a name that the catalogue does not have."""
    known = {attack.name: attack for attack in catalogue(options)}
    for name in (*only, *skip):
        if name not in known:
            raise KeyError(name)
    return [
        attack
        for name, attack in known.items()
        if attack.expected != REFUSED or (name not in skip and (not only or name in only))
    ]
