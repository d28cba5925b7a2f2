"""Requests that run on the event loop, each in a greenlet: while one waits, the loop continues with the others.

The rule for code that runs on the loop is in this folder's README.md.
"""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar, cast

from greenlet import getcurrent, greenlet

Result = TypeVar("Result")

_MOST_FREE = 64
"""The most idle greenlets; each takes 16 KiB."""


class RequestGreenlet(greenlet):
    """One request on the loop; its parent is the loop."""

    def pause(self) -> Any:
        """Let the loop continue until it switches back to this request; return the value that it passes."""
        return cast("greenlet", self.parent).switch()


class RequestGreenlets:
    """Runs `answer` for each request in a greenlet, for several at a time; greenlets are reused.

    A new greenlet makes the operating system map memory, and unmap it at the greenlet's end.
    """

    def __init__(self, answer: Callable[..., object]) -> None:
        self._answer = answer
        self._free: list[RequestGreenlet] = []

    def begin(self, *request: object) -> None:
        """Begin a request; returns when it is answered or first pauses. Raises what `answer` raises."""
        if not self._free:
            # No arguments: a greenlet keeps those of its first switch until it ends, here a request with its token.
            RequestGreenlet(self._serve).switch()
        self._free.pop().switch(request)

    def _serve(self) -> None:
        own = cast("RequestGreenlet", getcurrent())
        while len(self._free) < _MOST_FREE:
            self._free.append(own)
            self._answer(*own.pause())  # no variable refers to the request: it must not outlive its response
            own.gr_context = None  # context variables must not leak into the next request


def current_request() -> RequestGreenlet | None:
    """The request that currently runs on the loop; `None` in any other thread."""
    current = getcurrent()
    return current if isinstance(current, RequestGreenlet) else None


def off_loop(work: Callable[[], Result]) -> Result:
    """Return the result of `work`, which may block: for a request on the loop, it runs in a thread.

    In any other thread, `work` is simply called. Raises what `work` raises.
    """
    request = current_request()
    if request is None:
        return work()
    # The context has the request id for log lines.
    future = asyncio.get_running_loop().run_in_executor(None, copy_context().run, work)
    future.add_done_callback(request.switch)
    request.pause()
    return future.result()
