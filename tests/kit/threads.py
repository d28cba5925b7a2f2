"""Concurrent calls."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

PATIENCE_SECONDS = 30


def outcome_of(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result or the exception of a call."""
    try:
        return call(*arguments)
    except Exception as error:  # noqa: BLE001 - the test examines each call's result or exception
        return error


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Call functions in threads that start at the same moment; return their results and exceptions, in order."""
    barrier = Barrier(len(calls))

    def started(call: Callable[[], Any]) -> Any:
        barrier.wait(PATIENCE_SECONDS)
        return outcome_of(call)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(started, calls))


def writing(store: Any, action: Callable[[Any], Any]) -> Callable[[], Any]:
    """A function that calls `action(tx)` in its own transaction."""

    def write() -> Any:
        with store.write() as tx:
            return action(tx)

    return write
