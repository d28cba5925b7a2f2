"""What must not be felt by those who ask for tokens, and is done while their latencies are measured."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Event

from mock_idp.server import MockIdp

Count = Callable[[], int]
"""How often it has happened up to now."""

DOWN_STATUS = 503
DOWN_SECONDS = 0.3
"""How long the endpoint that is down makes its callers wait for its refusal."""
_PAUSE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something that happens again and again `during` a block; `name` is for the report."""

    name: str
    during: Callable[[], AbstractContextManager[Count]]


def issuer_down(github: MockIdp, ask: Callable[[], object]) -> Disturbance:
    """The issuer's JWKS endpoint fails; `ask` makes the provider turn to it."""

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
    """Nothing but `act`, with pauses."""
    return Disturbance(name, lambda: _repeated(act))


def _refusals(github: MockIdp) -> int:
    return len(github.asked("jwks", status=DOWN_STATUS))


@contextmanager
def _repeated(act: Callable[[], object]) -> Iterator[Count]:
    """Act in a thread, with pauses, until the block ends; then raises what an act raised, after which none follows."""
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
