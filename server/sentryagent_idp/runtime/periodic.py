"""Periodic tasks in the background of a process, and tasks at its end."""

import threading
from collections.abc import Callable, Sequence
from multiprocessing import util

import structlog

from sentryagent_idp.errors import DatabaseUnavailable

log = structlog.get_logger()

INTERVAL_SECONDS = 60


def start(
    tasks: Sequence[Callable[[], object]],
    wait: Callable[[float], bool],
    *,
    every: float = INTERVAL_SECONDS,
    after_work: float | None = None,
    at_once: bool = False,
) -> threading.Thread:
    """Run the tasks in a background thread, once every `every` seconds, until `wait` (an `Event.wait`) returns true.

    If a task reports that it had work, the next round comes after `after_work` seconds, if given. The first round
    comes after `every` seconds, or immediately with `at_once`.
    """

    def loop() -> None:
        pause = 0.0 if at_once else every
        while not wait(pause):
            had_work = [_run(task) for task in tasks]
            pause = after_work if after_work is not None and any(had_work) else every

    thread = threading.Thread(target=loop, name="housekeeping", daemon=True)
    thread.start()
    return thread


def at_the_end(task: Callable[[], object]) -> None:
    """Run the task when this worker process ends normally, after its last request.

    Workers are children of `multiprocessing`, which leave by `os._exit`: `atexit` functions do not run there.
    """
    util.Finalize(None, _finish, [task], exitpriority=0)


def _finish(task: Callable[[], object]) -> None:
    try:
        task()
    except DatabaseUnavailable as error:
        log.error("unwritten data was lost", reason=error.message)  # noqa: TRY400 - the cause is known
    except Exception:
        log.exception("unwritten data was lost")


def _run(task: Callable[[], object]) -> bool:
    """Run the task; return whether it had work and could do it."""
    try:
        return bool(task())
    except DatabaseUnavailable as error:
        log.debug("background task postponed", reason=error.message)
    except Exception:  # if the thread ended, its work would stay undone for ever, and nobody would notice
        log.exception("background task failed")
    return False
