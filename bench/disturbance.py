"""Disturbances that happen while latencies are measured, and must not increase them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Event

from mock_idp.server import MockIdp

Count = Callable[[], int]
"""The number of times that it has happened so far."""

DOWN_STATUS = 503
DOWN_SECONDS = 0.3
"""How long callers of the failing endpoint wait for its error."""
_PAUSE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Disturbance:
    """An event that repeats `during` a block; `name` is for the report."""

    name: str
    during: Callable[[], AbstractContextManager[Count]]


def issuer_down(github: MockIdp, ask: Callable[[], object]) -> Disturbance:
    """Return a disturbance in which the issuer's JWKS endpoint fails; `ask` makes the provider fetch the keys."""

    @contextmanager
    def during() -> Iterator[Count]:
        before = _refusals(github)
        github.plan_fault("jwks", status=DOWN_STATUS, delay=DOWN_SECONDS)
        try:
            with _repeated(ask):
                yield lambda: _refusals(github) - before
        finally:
            github.clear_faults()

    return Disturbance(f"the issuer's JWKS endpoint answers {DOWN_STATUS} after {DOWN_SECONDS:g} s", during)


def repeated(name: str, act: Callable[[], object]) -> Disturbance:
    """Return a disturbance that repeats `act`, with pauses."""
    return Disturbance(name, lambda: _repeated(act))


def _refusals(github: MockIdp) -> int:
    return len(github.asked("jwks", status=DOWN_STATUS))


@contextmanager
def _repeated(act: Callable[[], object]) -> Iterator[Count]:
    """Repeat `act` in a thread, with pauses, until the block ends or `act` raises; the block's end then raises that."""
    over, done = Event(), []

    def loop() -> None:
        while not over.is_set():
            act()
            done.append(True)
            over.wait(_PAUSE_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(loop)
        try:
            yield lambda: len(done)
        finally:
            over.set()
    acting.result()
