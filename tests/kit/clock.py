"""Time that tests turn."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

Task = Callable[[], None]


class Clock:
    """Stands until it is turned; `now` is a moment, or seconds."""

    def __init__(self, now: Any) -> None:
        self.now = now

    def __call__(self) -> Any:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds) if isinstance(self.now, datetime) else seconds


class RunningClock:
    """The machine's own clock of seconds, which can be moved on."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.offset

    def advance(self, seconds: float) -> None:
        self.offset += seconds


class Schedule:
    """Runs at once what is due at once, and keeps the rest for the test to run."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.later: list[tuple[float, Task]] = []

    def __call__(self, delay: float, task: Task) -> None:
        if delay:
            self.later.append((delay, task))
        else:
            task()

    def run_next(self) -> float:
        """Move the clock to the one task that waits and run it; gives how many seconds that was."""
        ((delay, task),) = self.later
        self.later.clear()
        self.clock.advance(delay)
        task()
        return delay
