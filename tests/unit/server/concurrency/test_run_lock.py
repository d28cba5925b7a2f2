"""One thread of a process computes; nothing depends on it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from kit.processes import wait_until
from sentryagent_idp.concurrency import run_lock
from sentryagent_idp.concurrency.run_lock import Baton


@pytest.fixture
def shared():
    """A baton that nobody holds."""
    return Baton()


@pytest.fixture
def pool():
    """Other threads."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def patient(monkeypatch):
    """Nobody is overtaken."""
    monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS", 60.0)


def queue_up(pool, shared, note):
    """Another thread that waits for the run_lock, and notes when it has it."""

    def compute():
        with shared.hold():
            note()

    before = len(shared._line)
    call = pool.submit(compute)
    wait_until(lambda: call.done() or len(shared._line) > before, "the other thread", pause=0.001)
    return call


@pytest.mark.usefixtures("patient")
def test_those_that_wait_compute_one_after_the_other_in_their_order(shared, pool):
    """Also where the one before them failed."""
    order = []

    def fail_before_others():
        with shared.hold():
            waits.extend(queue_up(pool, shared, lambda name=name: order.append(name)) for name in "abc")
            Event().wait(0.02)
            order.append("first")
            raise LookupError

    waits = []
    with pytest.raises(LookupError):
        fail_before_others()
    for call in waits:
        call.result(10)
    assert order == ["first", "a", "b", "c"]
    assert not shared._is_taken


@pytest.mark.usefixtures("patient")
def test_who_steps_back_goes_on_after_all_that_wait(shared, pool):
    """And computes alone again; with nobody waiting, at once."""
    order = []
    with shared.hold():
        shared.step_back()
        waits = [queue_up(pool, shared, lambda name=name: order.append(name)) for name in "ab"]
        shared.step_back()
        order.append("last")
        later = queue_up(pool, shared, lambda: order.append("later"))
        Event().wait(0.02)
        assert order == ["a", "b", "last"]
    for call in (*waits, later):
        call.result(10)


@pytest.mark.usefixtures("patient")
def test_who_pauses_lets_others_compute_and_is_the_next_when_called(shared, pool):
    """It is called by whoever computes then, and goes on before those that came meanwhile."""
    order, turn, paused = [], shared.turn(), Event()

    def pause():
        with shared.hold():
            paused.set()
            shared.wait(turn)
            order.append("paused")

    call = pool.submit(pause)
    assert paused.wait(10)
    with shared.hold():
        waits = queue_up(pool, shared, lambda: order.append("newcomer"))
        shared.call(turn)
        Event().wait(0.02)
        assert order == []
    call.result(10)
    waits.result(10)
    assert order == ["paused", "newcomer"]


@pytest.mark.usefixtures("patient")
def test_a_call_before_the_pause_is_not_lost(shared):
    """Who is called while it still computes does not wait at all; nor where nobody computes."""
    with shared.hold():
        turn = shared.turn()
        shared.call(turn)
        shared.wait(turn)
        assert shared._is_taken
    turn = shared.turn()
    shared.call(turn)
    shared.wait(turn)
    assert shared._is_taken


@pytest.mark.usefixtures("patient")
def test_others_compute_while_one_is_aside(shared, pool):
    """And it computes alone again when it is back, also where the block failed; who had no baton gets none."""
    order = []

    def fail_aside():
        with shared.aside():
            queue_up(pool, shared, lambda: order.append("other")).result(10)
            raise LookupError

    with shared.hold():
        with pytest.raises(LookupError):
            fail_aside()
        later = queue_up(pool, shared, lambda: order.append("later"))
        Event().wait(0.02)
        assert order == ["other"]
    later.result(10)
    with shared.aside():
        assert not shared._is_taken
    assert not shared._is_taken


def test_who_keeps_it_is_overtaken(shared, pool):
    """A thread that waits for something with the baton in its hand stops nobody, and does not give away what it lost."""
    with shared.hold():
        order = []
        queue_up(pool, shared, lambda: order.append("overtaking")).result(10)
        assert order == ["overtaking"]
        assert shared._is_taken
    assert not shared._is_taken


def test_who_has_just_begun_is_not_overtaken(shared, monkeypatch):
    """However long one waited for those before."""
    turn = shared.turn()
    with shared.hold():
        shared.call(turn)
        monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS", 60.0)
        assert not shared._may_overtake(turn)
        monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS", 0.0)
        assert shared._may_overtake(turn)


def test_nobody_overtakes_into_a_pause(shared, monkeypatch):
    """Who was not called waits on, however long the others take."""
    monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS", 0.0)
    turn = shared.turn()
    with shared.hold(), ThreadPoolExecutor(1) as pool:
        call = pool.submit(shared.wait, turn)
        with pytest.raises(TimeoutError):
            call.result(0.05)
        shared.call(turn)
        call.result(10)


class Answer:
    """An answer that is made while it is read, and notes whether the baton is held then."""

    def __init__(self, shared):
        self.shared, self.events = shared, []

    def __iter__(self):
        self.events.append(f"read, {self.shared._is_taken}")
        yield b"hello"

    def close(self):
        self.events.append(f"closed, {self.shared._is_taken}")


@pytest.mark.usefixtures("patient")
def test_a_request_holds_it_until_its_answer_is_whole(shared):
    """The application is called, its answer read and closed with the baton held."""
    answer, called = Answer(shared), []

    def application(environ, start_response):
        called.append((environ, start_response, shared._is_taken))
        return answer

    assert shared.around(application)("environ", "start_response") == [b"hello"]
    assert called == [("environ", "start_response", True)]
    assert answer.events == ["read, True", "closed, True"]
    assert not shared._is_taken
