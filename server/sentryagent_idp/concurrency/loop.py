"""The event loop of a worker: reads each request whole, within limits and deadlines, and then has it answered.

Requests for a few routes are answered on the loop, each in a greenlet; all others in a thread. No thread waits for an
unauthenticated client: one that sends slowly, or stops halfway, holds a connection for seconds and nothing else.
Source: RSGI 1.5, https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # the name that RSGI specifies

from sentryagent_idp.concurrency.request_greenlet import RequestGreenlets
from sentryagent_idp.errors import PayloadTooLarge, RequestTimeout, ServiceError, ValidationFailed
from sentryagent_idp.runtime import listeners

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

log = structlog.get_logger()

MAX_BODY_BYTES = 32 * 1024
LARGE_BODY_BYTES = 1024 * 1024
"""The limit for routes whose guard runs before the body is read."""

REFUSAL = "sentryagent.refusal"
"""The key in the WSGI environment for the `ServiceError` of a request that cannot be read."""

_AMBIGUOUS = ""
"""The variable for every header field whose name has an underscore."""
_DECIDING = ("authorization", "content-type", "if-match", "x-forwarded-for")
"""Header fields that must not count as absent if they cannot be read."""
_CONSTANT: "WSGIEnvironment" = {
    "SCRIPT_NAME": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.errors": sys.stderr,
    "wsgi.input_terminated": True,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}
_OFF_LOOP_THREADS = 8
_LARGE_AT_ONCE = 2
"""The most large bodies for which threads wait at a time: a caller that sends slowly must not take all threads."""
_BODY_SECONDS = 10
_GIVE_UP_SECONDS = 0.1
"""The pause between giving up on a body and the response."""
_UNKNOWN = MAX_BODY_BYTES + 1
"""Stands for the length of a chunked body."""
_INCOMPLETE = "it ended early; send all of it"
_CLOSE = ("Connection", "close")
"""Sent if part of a request may be unread: it must not be read as the next request."""
_MAX_DISCARDED_BYTES = 1024 * 1024
"""How much of a too large body is read and dropped: a client that is still sending does not read the response."""
_CHECK_SECONDS = 0.2
_UNREAD_SECONDS = 10
"""How long a client may leave its response in our buffers without reading any of it."""
_LAST_SECONDS = 0.2
"""The time from SIGTERM to the end of idle connections, in which requests that are on their way arrive."""


class Headers(Protocol):
    """Header fields by their lower-case names; `items` leaves out values that are not visible ASCII."""

    def __len__(self) -> int:
        """The number of names."""

    def __contains__(self, name: str) -> bool:
        """Whether the field exists, readable or not."""

    def get(self, name: str, default: Any = None) -> Any:
        """The value of the first field of this name."""

    def items(self) -> list[tuple[str, str]]:
        """All fields, in their order."""


class Scope(Protocol):
    """The head of a request; `client` and `server` are ADDRESS:PORT, `path` is percent-decoded."""

    client: str
    server: str
    method: str
    path: str
    query_string: str
    headers: Headers


class HttpProtocol(Protocol):
    """The body of a request, and the way to respond to it."""

    def __call__(self) -> asyncio.Future[bytes]:
        """The whole body; raises `ProtocolClosed` if it ends early."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The parts of the body, as they arrive."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send the response; can be called in any thread."""


def too_large(limit: int) -> PayloadTooLarge:
    """The refusal of a body of more than `limit` bytes."""
    return PayloadTooLarge(f"The body is larger than {limit // 1024} KiB; send less.")


class _LateBody:
    """A large body, which is read only when the application asks for it, after its guard.

    A thread waits for it, at most as long as any body may take. The body of a client that the guard refuses is read
    and dropped, because a client that is still sending does not read the response.
    """

    def __init__(self, protocol: HttpProtocol, loop: asyncio.AbstractEventLoop) -> None:
        self._protocol, self._loop = protocol, loop
        self._is_requested = False
        self.is_whole = False
        self.deadline = _deadline(loop)

    def read(self, _size: int = -1) -> bytes:
        """Read the whole body, in a thread; raises as `_in_time` does."""
        self._is_requested = True
        reading = _in_time(self._protocol, LARGE_BODY_BYTES, self.deadline)
        body = asyncio.run_coroutine_threadsafe(reading, self._loop).result()
        self.is_whole = True
        return body

    async def drop(self) -> None:
        """Read and discard the body, if the application did not ask for it."""
        if not self._is_requested:
            with suppress(ServiceError):
                await _in_time(self._protocol, 0, self.deadline)


class RsgiApplication:
    """An RSGI application for granian that runs a WSGI application.

    Requests for `on_loop`, pairs of method and path, are answered on the loop, which they must never block; all others
    by `threads` threads. Requests for `large` may have a body of `LARGE_BODY_BYTES`.
    """

    def __init__(
        self,
        application: "WSGIApplication",
        threads: int,
        on_loop: Collection[tuple[str, str]] = (),
        large: Collection[tuple[str, str]] = (),
    ) -> None:
        self._application = application
        self._threads = ThreadPoolExecutor(threads, "request")
        self._on_loop = frozenset(on_loop)
        self._large = frozenset(large)
        self._large_at_once = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._arriving: dict[asyncio.Future[bytes], float] = {}
        self._is_ending = False
        self._greenlets = RequestGreenlets(self._answer_on_loop)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set up the loop before the worker listens; granian has set its signal handlers by then."""
        # Separate threads: slow requests must not delay the exchanges on the loop that need a thread.
        loop.set_default_executor(ThreadPoolExecutor(_OFF_LOOP_THREADS, "off-loop"))
        loop.call_soon(listeners.limit_unread_answers, _UNREAD_SECONDS)
        loop.call_soon(self._check_deadlines, loop)
        loop.add_signal_handler(signal.SIGTERM, self._end, loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept no new connections, answer requests that still arrive, and then have granian end this worker.

        granian by itself would at once close each connection on which no request has arrived. A proxy that has just
        opened it, or kept it open, may have sent a request by then, and cannot know whether it was handled.
        """
        self._is_ending = True
        # granian still handles this signal.
        loop.call_later(_LAST_SECONDS, signal.raise_signal, signal.SIGINT)
        listeners.begin_no_connection()

    async def __rsgi__(self, scope: Scope, protocol: HttpProtocol) -> None:
        """Read one request, and return when it is answered."""
        environ = _head(scope)
        if (scope.method, scope.path) in self._large and _length(scope.headers) > MAX_BODY_BYTES:
            await self._answer_large(environ, protocol)
            return
        try:
            body = await self._body(scope.headers, protocol)
        except ServiceError as refusal:
            environ[REFUSAL], body = refusal, b""
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)
        loop = asyncio.get_running_loop()
        if (scope.method, scope.path) in self._on_loop:
            answered = loop.create_future()
            self._greenlets.begin(environ, protocol, answered)
            await answered
        else:
            await loop.run_in_executor(self._threads, self._answer, environ, protocol)

    async def _answer_large(self, environ: "WSGIEnvironment", protocol: HttpProtocol) -> None:
        loop = asyncio.get_running_loop()
        environ["wsgi.input"] = body = _LateBody(protocol, loop)
        async with AsyncExitStack() as slot:
            try:
                async with asyncio.timeout_at(body.deadline):
                    await slot.enter_async_context(self._large_at_once)
            except TimeoutError:
                # A caller with a hundred slow bodies must not block others, and a hundred connections, for minutes.
                environ[REFUSAL] = RequestTimeout("Other large bodies are arriving too slowly; try again.")
            status, headers, answer = await loop.run_in_executor(self._threads, self._outcome, environ)
        await body.drop()
        if not body.is_whole or self._is_ending:
            headers.append(_CLOSE)
        protocol.response_bytes(status, headers, answer)

    async def _body(self, headers: Headers, protocol: HttpProtocol) -> bytes:
        """Read the whole body; raises as `_in_time` does."""
        length = _length(headers)
        if not length:
            return b""
        if length > MAX_BODY_BYTES:
            return await _in_time(protocol, MAX_BODY_BYTES, _deadline(asyncio.get_running_loop()))
        try:
            return await self._arrived(protocol())
        except TimeoutError as error:
            raise await _late() from error
        except ProtocolClosed as error:
            raise ValidationFailed("body", _INCOMPLETE) from error

    async def _arrived(self, body: "asyncio.Future[bytes]") -> bytes:
        """Wait for the body; raises `TimeoutError` if it takes too long."""
        self._arriving[body] = asyncio.get_running_loop().time()
        try:
            return await body
        except asyncio.CancelledError:
            if body in self._arriving:
                raise
            raise TimeoutError from None
        finally:
            self._arriving.pop(body, None)

    def _answer_on_loop(
        self, environ: "WSGIEnvironment", protocol: HttpProtocol, answered: asyncio.Future[None]
    ) -> None:
        self._answer(environ, protocol)
        if not answered.done():
            answered.set_result(None)

    def _answer(self, environ: "WSGIEnvironment", protocol: HttpProtocol) -> None:
        status, headers, body = self._outcome(environ)
        if REFUSAL in environ or self._is_ending:
            headers.append(_CLOSE)
        protocol.response_bytes(status, headers, body)

    def _outcome(self, environ: "WSGIEnvironment") -> tuple[int, list[tuple[str, str]], bytes]:
        try:
            return self._call_application(environ)
        except BaseException:  # on the loop, it would end other requests, too
            log.exception("a request could not be answered")
            return 500, [], b""

    def _call_application(self, environ: "WSGIEnvironment") -> tuple[int, list[tuple[str, str]], bytes]:
        """Call the application, and return its status, header fields and body."""
        status, headers = 500, list[tuple[str, str]]()

        def start_response(line: str, given: list[tuple[str, str]], *_: object) -> None:
            nonlocal status, headers
            status, headers = int(line[:3]), given

        parts = self._application(environ, start_response)  # type: ignore[arg-type]  # nobody calls `write`
        try:
            body = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        return status, headers, body

    def _check_deadlines(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the wait for bodies that take too long, at regular intervals."""
        self._give_up_late(loop.time())
        loop.call_later(_CHECK_SECONDS, self._check_deadlines, loop)

    def _give_up_late(self, now: float) -> None:
        # A timer for each body would be a fifth of the loop's work.
        # The dict is in the order of arrival, so nothing after the first body in time is late.
        late = takewhile(lambda item: now - item[1] > _BODY_SECONDS, self._arriving.items())
        for body, _ in list(late):
            del self._arriving[body]
            body.cancel()


def _head(scope: Scope) -> "WSGIEnvironment":
    """The head of a request as variables of PEP 3333; lines with the same name are joined (RFC 9110, 5.3)."""
    name, _, port = scope.server.rpartition(":")
    path, headers = scope.path, scope.headers
    environ = {
        **_CONSTANT,
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": path if path.isascii() else path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "SERVER_NAME": name,
        "SERVER_PORT": port,
    }
    others = len(environ)
    for field, value in headers.items():
        variable = _variable(field)
        environ[variable] = f"{environ[variable]},{value}" if variable in environ else value
    if len(environ) - others != len(headers) or _AMBIGUOUS in environ:
        _refuse_unreadable(headers, environ)
    return environ


@lru_cache(maxsize=256)
def _variable(name: str) -> str:
    if "_" in name:
        return _AMBIGUOUS
    variable = name.upper().replace("-", "_")
    return variable if variable == "CONTENT_TYPE" else f"HTTP_{variable}"


def _refuse_unreadable(headers: Headers, environ: "WSGIEnvironment") -> None:
    """Refuse the request if security-relevant header fields cannot be read, or are ambiguous.

    `X_Forwarded_For` and `X-Forwarded-For` would be the same variable: a client could send the former next to the
    proxy's own and be believed.
    """
    unreadable = next((it for it in _DECIDING if it in headers and _variable(it) not in environ), None)
    if _AMBIGUOUS in environ:
        environ[REFUSAL] = ValidationFailed("headers", "a name has an underscore; write a hyphen")
    elif unreadable:
        problem = f"{unreadable} has characters other than visible ASCII"
        environ[REFUSAL] = ValidationFailed("headers", problem)


def _length(headers: Headers) -> int:
    """The length of the body; more than `MAX_BODY_BYTES` if the head does not state it."""
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return 0
    return int(headers.get("content-length", _UNKNOWN))


async def _late() -> RequestTimeout:
    """Wait until granian no longer reads a late body, and return its refusal.

    If the response is sent while granian still reads, some connections stay open until the client closes them: a
    stranger could use up all connections of a worker, whose shutdown would wait for them.
    """
    await asyncio.sleep(_GIVE_UP_SECONDS)
    return RequestTimeout(f"The body did not arrive within {_BODY_SECONDS} s; send it faster.")


def _deadline(loop: asyncio.AbstractEventLoop) -> float:
    """The deadline, by the loop's clock, for the body of a request whose head has just arrived."""
    return loop.time() + _BODY_SECONDS


async def _in_time(protocol: HttpProtocol, limit: int, deadline: float) -> bytes:
    """Read a body that is too large or of unknown size.

    Raises `PayloadTooLarge`, `RequestTimeout`, and `ValidationFailed` if the client stopped before its end.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await _bounded(protocol, limit)
    except TimeoutError as error:
        raise await _late() from error
    except ProtocolClosed as error:
        raise ValidationFailed("body", _INCOMPLETE) from error


async def _bounded(protocol: HttpProtocol, limit: int) -> bytes:
    """Read a body, and give up if far more than the limit arrives; raises as `_in_time` does.

    granian ends a body with one empty part, or with two if it was cut off or has trailers.
    """
    body, received, empty = bytearray(), 0, 0
    async for part in protocol:
        received += len(part)
        empty += not part
        if received <= limit:
            body += part
        elif received > max(limit, _MAX_DISCARDED_BYTES):
            break
    if received > limit:
        raise too_large(limit)
    if empty != 1:
        raise ValidationFailed("body", _INCOMPLETE)
    return bytes(body)
