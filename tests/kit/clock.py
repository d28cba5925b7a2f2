"""Clocks and schedules that tests control."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

Task = Callable[[], None]


class Clock:
    """A stopped clock that tests advance; `now` is a datetime or a number of seconds."""

    def __init__(self, now: Any) -> None:
        self.now = now

    def __call__(self) -> Any:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds) if isinstance(self.now, datetime) else seconds


class RunningClock:
    """The machine's monotonic clock, which tests can move forward."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.offset

    def advance(self, seconds: float) -> None:
        self.offset += seconds


class Schedule:
    """A scheduler that runs tasks without a delay at once and keeps the others for the test to run."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.later: list[tuple[float, Task]] = []

    def __call__(self, delay: float, task: Task) -> None:
        if delay:
            self.later.append((delay, task))
        else:
            task()

    def run_next(self) -> float:
        """Advance the clock to the only waiting task, run it and return its delay in seconds."""
        ((delay, task),) = self.later
        self.later.clear()
        self.clock.advance(delay)
        task()
        return delay
