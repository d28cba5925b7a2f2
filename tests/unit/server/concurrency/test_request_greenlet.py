"""Requests on the loop that wait while others continue."""

import asyncio
import threading
import weakref
from contextvars import ContextVar

import pytest

from sentryagent_idp.concurrency.request_greenlet import (
    RequestGreenlet,
    RequestGreenlets,
    current_request,
    off_loop,
)

REQUEST_ID = ContextVar("request_id", default=None)


def on_loop(*requests):
    """Run requests on a loop until all have ended."""

    async def run():
        ended = [asyncio.Event() for _ in requests]
        for request, event in zip(requests, ended, strict=True):
            RequestGreenlet(lambda request=request, event=event: (request(), event.set())).switch()
        for event in ended:
            await asyncio.wait_for(event.wait(), 10)

    asyncio.run(run())


def test_others_go_on_while_one_waits():
    """While one request waits, the next one runs."""
    ended, may_end = [], threading.Event()

    def waits():
        assert off_loop(lambda: may_end.wait(10))
        ended.append("waits")

    def goes_on():
        ended.append("goes on")
        may_end.set()

    on_loop(waits, goes_on)

    assert ended == ["goes on", "waits"]


def test_work_runs_in_another_thread_with_the_context_of_the_request():
    """Work in another thread has the context variables of its request, so that log lines name the request."""
    seen = []

    def request():
        REQUEST_ID.set("r-1")
        seen.append(off_loop(lambda: (threading.get_ident(), REQUEST_ID.get())))

    on_loop(request)

    ((thread, request_id),) = seen
    assert thread != threading.get_ident()
    assert request_id == "r-1"


def test_what_the_work_raises_reaches_the_request():
    """An exception of the work is raised in the request."""
    raised = []

    def request():
        with pytest.raises(LookupError, match="absent"):
            off_loop(_fail)
        raised.append(True)

    on_loop(request)

    assert raised == [True]


def _fail():
    raise LookupError("absent")


def test_outside_of_the_loop_work_is_simply_called():
    """Outside the loop the work is called directly."""
    assert current_request() is None
    assert off_loop(threading.get_ident) == threading.get_ident()


def test_a_greenlet_answers_the_next_request_too():
    """A greenlet is reused for the next request, because a new one would allocate memory each time."""
    used = []
    greenlets = RequestGreenlets(lambda: used.append(current_request()))

    greenlets.begin()
    greenlets.begin()

    assert used[0] is not None
    assert used[0] is used[1]


def test_a_request_sees_no_context_of_the_one_before():
    """A reused greenlet does not see the context variables of the previous request."""
    seen = []

    def answer(request_id):
        seen.append(REQUEST_ID.get())
        REQUEST_ID.set(request_id)

    greenlets = RequestGreenlets(answer)
    for request_id in ("r-1", "r-2", "r-3"):
        greenlets.begin(request_id)

    assert seen == [None, None, None]


def test_a_greenlet_that_waits_for_a_request_keeps_none():
    """An idle greenlet keeps no reference to a request, which contains a token."""
    greenlets = RequestGreenlets(lambda _: None)
    answered = []
    for _ in range(3):
        request = threading.Event()
        answered.append(weakref.ref(request))
        greenlets.begin(request)
    del request

    assert [reference() for reference in answered] == [None, None, None]


def test_a_request_that_waits_keeps_its_greenlet():
    """While a request waits, the next one gets another greenlet."""
    waiting, ended = [], []

    def answer(name, waits):
        if waits:
            waiting.append(current_request())
            ended.append((name, current_request().pause()))
        else:
            ended.append((name, None))

    greenlets = RequestGreenlets(answer)
    greenlets.begin("first", True)
    greenlets.begin("second", False)
    waiting[0].switch("woken")

    assert ended == [("second", None), ("first", "woken")]


def test_after_a_burst_few_greenlets_are_kept():
    """At most 64 idle greenlets are kept after a burst, because each uses memory."""
    seen = []

    def answer():
        seen.append(current_request())
        current_request().pause()

    greenlets = RequestGreenlets(answer)
    for _ in range(100):
        greenlets.begin()
    for greenlet in seen[:]:
        greenlet.switch()

    assert sum(not greenlet.dead for greenlet in seen) == 64


def test_a_request_that_fails_does_not_stop_the_next():
    """An exception is raised to the caller, and the next request runs."""

    def answer(error):
        if error:
            raise error
        answered.append(True)

    answered = []
    greenlets = RequestGreenlets(answer)
    with pytest.raises(ValueError, match="broken"):
        greenlets.begin(ValueError("broken"))
    greenlets.begin(None)

    assert answered == [True]
