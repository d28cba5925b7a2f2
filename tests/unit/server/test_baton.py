"""One thread of a process computes; nothing depends on it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from server import baton
from server.baton import Baton


@pytest.fixture
def patient(monkeypatch):
    """Nobody is overtaken."""
    monkeypatch.setattr(baton, "_PATIENCE_SECONDS", 60.0)


def _hold(held, entered):
    with held.hold():
        entered.set()


@pytest.mark.usefixtures("patient")
def test_one_computes_at_a_time():
    """A thread gets the baton when the one before it is done, also where that one failed."""
    shared, entered = Baton(), Event()

    def fail_beside(pool):
        with shared.hold():
            waits.append(pool.submit(_hold, shared, entered))
            assert not entered.wait(0.02)
            raise LookupError

    waits = []
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(LookupError):
            fail_beside(pool)
        waits[0].result(10)
    assert entered.is_set()


@pytest.mark.usefixtures("patient")
def test_who_waits_hands_over():
    """After `hand_over` another one computes; the end of the block takes nothing from it."""
    shared, entered, done = Baton(), Event(), Event()

    def compute():
        with shared.hold():
            entered.set()
            assert done.wait(10)
            return shared._lock.locked()

    with ThreadPoolExecutor(1) as pool:
        with shared.hold():
            shared.hand_over()
            computes = pool.submit(compute)
            assert entered.wait(10)
        done.set()
        assert computes.result(10)
    assert not shared._lock.locked()


def test_who_keeps_it_is_overtaken():
    """A thread that waits for something with the baton in its hand stops nobody, and does not give away what it lost."""
    shared, entered = Baton(), Event()
    with shared.hold(), ThreadPoolExecutor(1) as pool:
        pool.submit(_hold, shared, entered).result(10)
        assert entered.is_set()
        assert shared._lock.locked()


@pytest.mark.usefixtures("patient")
def test_a_request_holds_it():
    """The application is called with the baton held, and answers as before."""
    shared = Baton()

    def application(environ, start_response):
        start_response("200 OK", [])
        return [environ["said"], str(shared._lock.locked()).encode()]

    answer = shared.around(application)({"said": b"hello"}, lambda *_: None)

    assert list(answer) == [b"hello", b"True"]
    assert not shared._lock.locked()
