"""Restarts of a background process that died."""

import pytest

from sentryagent_idp.runtime import background_process


class Death:
    """A process that dies after this number of seconds."""

    exitcode = -9

    def __init__(self, clock, seconds):
        self._clock = clock
        self._seconds = seconds

    def join(self):
        self._clock.now += self._seconds


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


class Over:
    """An event that is never set and records how long it was waited for."""

    def __init__(self):
        self.pauses = []

    def is_set(self):
        return False

    def wait(self, seconds):
        self.pauses.append(seconds)


@pytest.mark.parametrize(
    ("lives", "pauses"),
    [
        pytest.param([3600], [1], id="once"),
        pytest.param([0] * 9, [1, 2, 4, 8, 16, 32, 60, 60, 60], id="at once, each time"),
        pytest.param([0, 0, 0, 61, 0], [1, 2, 4, 1, 2], id="settled in between"),
    ],
)
def test_a_process_that_dies_early_each_time_is_started_less_and_less_often(monkeypatch, lives, pauses):
    """Each start leaves files in memory, which frequent restarts would fill within hours until the workers die."""
    clock, over = Clock(), Over()
    monkeypatch.setattr(background_process, "time", clock)
    background = background_process._Background(lambda: None)
    background._is_over = over
    first, *rest = [Death(clock, seconds) for seconds in lives]
    successors = iter([*rest, None])
    monkeypatch.setattr(background, "_renew", lambda: next(successors))

    background._supervise(first)

    assert over.pauses == pauses


def test_a_start_that_fails_is_tried_again(monkeypatch):
    """A failed start, for example without memory for a fork, is retried, because nothing else restarts the process."""
    clock, over = Clock(), Over()
    monkeypatch.setattr(background_process, "time", clock)
    background = background_process._Background(lambda: None)
    background._is_over = over
    outcomes = iter([MemoryError(), OSError(), Death(clock, 0), None])

    def renew():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(background, "_renew", renew)

    background._supervise(Death(clock, 0))

    assert next(outcomes, "all used") == "all used"
