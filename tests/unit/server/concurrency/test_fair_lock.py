"""A fair lock."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from sqlalchemy.exc import TimeoutError as WaitTimeout

from sentryagent_idp.concurrency.fair_lock import Turns


def test_one_at_a_time_in_the_order_of_coming():
    """Waiting threads get the lock one at a time, first come, first served."""
    turns, served, at_work = Turns(10), [], []

    def work(number):
        with turns.take():
            at_work.append(number)
            served.append((number, len(at_work)))
            at_work.remove(number)

    with ThreadPoolExecutor(8) as pool:
        with turns.take():
            for number in range(8):
                pool.submit(work, number)
                while len(turns._waiting) < number + 2:
                    Event().wait(0.001)
        pool.shutdown(wait=True)
    assert served == [(number, 1) for number in range(8)]


def test_waiting_is_bounded_and_giving_up_leaves_no_trace():
    """A thread that waits too long is refused, and the next one gets the lock."""
    turns = Turns(0.01)
    with (
        turns.take(),
        pytest.raises(WaitTimeout, match=r"^other writers held the lock for 0.01 s$"),
        turns.take(),
    ):
        pytest.fail("the turn was taken twice")
    with turns.take():
        assert len(turns._waiting) == 1
    assert not turns._waiting


def test_an_error_gives_the_turn_on():
    """A block that fails releases the lock."""
    turns = Turns(0.01)
    with pytest.raises(LookupError), turns.take():
        raise LookupError
    with turns.take():
        assert len(turns._waiting) == 1
