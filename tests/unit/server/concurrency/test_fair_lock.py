"""A fair lock."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from sqlalchemy.exc import TimeoutError as WaitTimeout

from sentryagent_idp.concurrency.fair_lock import FairLock


def test_one_at_a_time_in_the_order_of_arrival():
    """Waiting threads get the lock one at a time, first come, first served."""
    lock, served, at_work = FairLock(10), [], []

    def work(number):
        with lock.hold():
            at_work.append(number)
            served.append((number, len(at_work)))
            at_work.remove(number)

    with ThreadPoolExecutor(8) as pool:
        with lock.hold():
            for number in range(8):
                pool.submit(work, number)
                while len(lock._waiting) < number + 2:
                    Event().wait(0.001)
        pool.shutdown(wait=True)
    assert served == [(number, 1) for number in range(8)]


def test_waiting_is_bounded_and_giving_up_leaves_no_trace():
    """A thread that waits too long is refused, and the next one gets the lock."""
    lock = FairLock(0.01)
    with (
        lock.hold(),
        pytest.raises(WaitTimeout, match=r"^other writers held the lock for 0.01 s$"),
        lock.hold(),
    ):
        pytest.fail("the lock was held twice")
    with lock.hold():
        assert len(lock._waiting) == 1
    assert not lock._waiting


def test_an_error_releases_the_lock():
    """A block that fails releases the lock."""
    lock = FairLock(0.01)
    with pytest.raises(LookupError), lock.hold():
        raise LookupError
    with lock.hold():
        assert len(lock._waiting) == 1
