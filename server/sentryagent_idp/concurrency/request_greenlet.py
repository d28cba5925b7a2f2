"""Requests that run on the event loop, each in a greenlet: one that must wait lets the loop go on with the others.

The rule about what may run on the loop is in this folder's README.md.
"""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar, cast

from greenlet import getcurrent, greenlet

Result = TypeVar("Result")

_MOST_FREE = 64
"""Greenlets that wait for a request; each takes 16 KiB."""


class RequestGreenlet(greenlet):
    """One request on the loop; its parent is the loop."""

    def pause(self) -> Any:
        """Let the loop go on until it switches back to this request; what it then hands over."""
        return cast("greenlet", self.parent).switch()


class RequestGreenlets:
    """Runs `answer` for each request in a greenlet, also for several at a time; each greenlet is used again.

    A new one has the operating system map memory, and unmap it at its end.
    """

    def __init__(self, answer: Callable[..., object]) -> None:
        self._answer = answer
        self._free: list[RequestGreenlet] = []

    def begin(self, *request: object) -> None:
        """Answer a request; returns when it is answered, or pauses for the first time. Raises what `answer` raises."""
        if not self._free:
            # Without arguments: a greenlet keeps those of its first switch, here a request with its token, until it ends.
            RequestGreenlet(self._serve).switch()
        self._free.pop().switch(request)

    def _serve(self) -> None:
        own = cast("RequestGreenlet", getcurrent())
        while len(self._free) < _MOST_FREE:
            self._free.append(own)
            self._answer(*own.pause())  # no variable has the request: it must not outlive its answer
            own.gr_context = None  # no context variable of a request is seen by the next


def current_request() -> RequestGreenlet | None:
    """The request that runs on the loop at the moment; `None` in any other thread."""
    current = getcurrent()
    return current if isinstance(current, RequestGreenlet) else None


def off_loop(work: Callable[[], Result]) -> Result:
    """The result of `work`, which may wait: of a request on the loop a thread does it, while the loop goes on.

    In any other thread it is simply called. Raises what `work` raises.
    """
    request = current_request()
    if request is None:
        return work()
    # The context has the id of the request, which log lines name.
    future = asyncio.get_running_loop().run_in_executor(None, copy_context().run, work)
    future.add_done_callback(request.switch)
    request.pause()
    return future.result()
