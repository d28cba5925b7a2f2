"""Calls at the same moment."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

PATIENCE_SECONDS = 30


def outcome_of(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call ended with: its result, or its exception."""
    try:
        return call(*arguments)
    except Exception as error:  # noqa: BLE001 - the test looks at what each call ended with
        return error


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Call functions in threads that all begin at the same moment; gives their results and exceptions, in order."""
    barrier = Barrier(len(calls))

    def started(call: Callable[[], Any]) -> Any:
        barrier.wait(PATIENCE_SECONDS)
        return outcome_of(call)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(started, calls))


def writing(store: Any, action: Callable[[Any], Any]) -> Callable[[], Any]:
    """A call of `action(tx)` in a transaction of its own."""

    def write() -> Any:
        with store.write() as tx:
            return action(tx)

    return write
