"""Tasks that a process runs again and again in the background, and once more at its end."""

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
    """Run the tasks in the background, once in `every` seconds, until `wait` returns true (an `Event.wait`).

    Where a task says that it had something to do, the next time comes in `after_work` seconds, if that is given. The
    first time comes after `every` seconds too, unless it is to come `at_once`.
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
    """Run the task once more when this worker process ends in order, after its last request.

    Workers are children of `multiprocessing`, which leave by `os._exit`: `atexit` is not heard there.
    """
    util.Finalize(None, _finish, [task], exitpriority=0)


def _finish(task: Callable[[], object]) -> None:
    try:
        task()
    except DatabaseUnavailable as error:
        log.error("what was still to be written is lost", reason=error.message)  # noqa: TRY400 - the cause is known
    except Exception:
        log.exception("what was still to be written is lost")


def _run(task: Callable[[], object]) -> bool:
    """Whether the task had something to do, and could do it."""
    try:
        return bool(task())
    except DatabaseUnavailable as error:
        log.debug("background task put off", reason=error.message)
    except Exception:  # a thread that ended would leave its work undone for ever, and nobody would see it
        log.exception("background task failed")
    return False
