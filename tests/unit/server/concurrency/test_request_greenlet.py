"""A request on the loop that waits, and the others that go on meanwhile."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from sentryagent_idp.concurrency.request_greenlet import RequestGreenlet, current_request, off_loop

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
    """The second request ends the wait of the first."""
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
    """Log lines of the work name the request."""
    seen = []

    def request():
        REQUEST_ID.set("r-1")
        seen.append(off_loop(lambda: (threading.get_ident(), REQUEST_ID.get())))

    on_loop(request)

    ((thread, request_id),) = seen
    assert thread != threading.get_ident()
    assert request_id == "r-1"


def test_what_the_work_raises_reaches_the_request():
    """As if the request had called it."""
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
    """A thread may wait itself."""
    assert current_request() is None
    assert off_loop(threading.get_ident) == threading.get_ident()
