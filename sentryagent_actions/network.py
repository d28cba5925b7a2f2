"""HTTP calls within one time budget, with limits on time and size and the rules for retries."""

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

import httpx

from sentryagent_actions.cancellation import Cancellation
from sentryagent_actions.errors import ActionError
from sentryagent_actions.proxies import Proxies
from sentryagent_actions.route import ProxyConnectError, open_route
from sentryagent_actions.tls import TlsProblem, find_failure
from sentryagent_actions.untrusted import one_line

T = TypeVar("T")

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 15.0
_MAX_RESPONSE_BYTES = 1024 * 1024
_MAX_JSON_DEPTH = 50
_GRACE_SECONDS = 2.0  # a runner that cancels a step kills it after 2.5 s
_MAX_RETRY_AFTER_SECONDS = 86_400  # no job waits longer, so a larger value comes from a broken gateway
_FIRST_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 8.0
_LAST_TRY_SECONDS = 1.0  # the part of the budget that a shortened pause leaves for the last call
_RETRYABLE_STATUSES = frozenset({408, 425, 429})
# The resolver's errors for a name that does not exist; older systems use EAI_NODATA.
_UNKNOWN_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class NetworkError(Exception):
    """A call got no usable response; the message is a short, sanitised reason."""


class UnreachableError(NetworkError):
    """No connection was made, or it was interrupted."""


class UnknownNameError(UnreachableError):
    """The host name does not resolve."""


class UnreachableProxyError(UnreachableError):
    """The proxy cannot be reached; `variable` names the environment variable that configures it."""

    def __init__(self, message: str, variable: str) -> None:
        super().__init__(message)
        self.variable = variable


class TimedOutError(NetworkError):
    """The server did not respond in time."""


class CertificateError(NetworkError):
    """The TLS handshake failed; another try would fail in the same way."""

    def __init__(self, message: str, problem: TlsProblem) -> None:
        super().__init__(message)
        self.problem = problem


class RefusedByProxyError(NetworkError):
    """The proxy answered CONNECT with 4xx: it requires credentials, or does not allow the host."""


class UnusableResponseError(NetworkError):
    """The response is a redirect, too large or not decodable; `status` is its status, or `None` if it is unknown."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Clock:
    """Time and randomness: epoch and monotonic seconds, a sleep, a random number in [0, 1), and the cancellation."""

    now: Callable[[], float]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    random: Callable[[], float]
    cancellation: Cancellation = field(default_factory=Cancellation)


@dataclass(frozen=True)
class Call:
    """One HTTP request; `bearer` is sent in the Authorization header, and the body is JSON or a form."""

    method: str
    url: str
    bearer: str = field(default="", repr=False)
    json: Mapping[str, object] | None = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Reply:
    """A complete HTTP response that is not a redirect."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def is_retryable(self) -> bool:
        """Whether a later try may succeed: the status is 408, 425, 429 or 5xx."""
        return self.status in _RETRYABLE_STATUSES or self.status >= 500

    def json_object(self) -> dict[str, object]:
        """Return the body as a JSON object. Raises ValueError."""
        try:
            value = json.loads(self.body)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - an invalid value from outside, not a wrong call
        if _depth(value) > _MAX_JSON_DEPTH:
            # Deeper values could be parsed but not dumped again, because `json.dumps` needs more of the interpreter's stack.
            raise ValueError("nested too deeply")
        return value

    def retry_after(self, now: float) -> float | None:
        """Return the seconds in `Retry-After` (RFC 9110, 10.2.3), or `None` if it is absent, invalid or over a day."""
        value = self.headers.get("retry-after", "").strip()
        try:
            seconds = (
                float(value)
                if value.isascii() and value.isdigit()
                else parsedate_to_datetime(value).timestamp() - now
            )
        except (ValueError, OverflowError):
            return None
        return max(0.0, seconds) if seconds <= _MAX_RETRY_AFTER_SECONDS else None


class CancelledCallError(KeyboardInterrupt):
    """The job was cancelled during a call; `reply` is the response that still arrived, or `None`."""

    def __init__(self, reply: Reply | None) -> None:
        super().__init__()
        self.reply = reply


class Network:
    """An HTTP client with one time budget, in seconds, for all its calls."""

    def __init__(
        self,
        client: httpx.Client,
        clock: Clock,
        budget_seconds: float,
        log: Callable[[str], None],
        debug: Callable[[str], None],
    ) -> None:
        self._client = client
        self._log = log
        self._debug = debug
        self._deadline = clock.monotonic() + budget_seconds
        self.clock = clock

    def send(self, call: Call) -> Reply:
        """Send a request once and return the response. Raises NetworkError or CancelledCallError."""
        request = self._client.build_request(
            call.method,
            call.url,
            headers={"Authorization": f"Bearer {call.bearer}"} if call.bearer else {},
            json=call.json,
            data=call.form,
            timeout=self._timeout(),
        )
        began = self.clock.monotonic()
        place = f"{call.method} {request.url.copy_with(query=None)}"
        try:
            reply = self._within_budget(lambda: self._exchange(request))
        except NetworkError as error:
            self._debug(f"{place}: {error} ({self.clock.monotonic() - began:.2f} s)")
            raise
        self._debug(f"{place}: {reply.status} ({self.clock.monotonic() - began:.2f} s)")
        return reply

    def _within_budget(self, work: Callable[[], Reply]) -> Reply:
        """Run `work` in a thread until it ends or the budget does; return its result or raise its exception.

        httpx limits each read but not their sum, and nothing limits DNS resolution: a server that drips its headers,
        or a resolver that hangs, would block the step for hours. A thread that still waits ends with the process.
        """
        outcome: SimpleQueue[Reply | BaseException] = SimpleQueue()
        result: Reply | BaseException

        def run() -> None:
            try:
                outcome.put(work())
            except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
                outcome.put(error)

        self.clock.cancellation.check()
        Thread(target=run, daemon=True).start()
        try:
            result = self.clock.cancellation.receive(outcome, max(0.0, self._left()))
        except Empty as error:
            raise TimedOutError("the response was not complete within `timeout`") from error
        except KeyboardInterrupt as cancelled:
            raise CancelledCallError(self._late_reply(outcome)) from cancelled
        if isinstance(result, BaseException):
            raise result
        return result

    def _late_reply(self, outcome: SimpleQueue[Reply | BaseException]) -> Reply | None:
        """Return the response to a call sent before the job was cancelled, because it can contain a token."""
        try:
            result = self.clock.cancellation.receive(outcome, _GRACE_SECONDS)
        except Empty:
            return None
        return result if isinstance(result, Reply) else None

    def _exchange(self, request: httpx.Request) -> Reply:
        with _network_errors():
            response = self._client.send(request, stream=True)
            try:
                return self._read(response)
            finally:
                response.close()

    def retry(self, attempt: Callable[[], T]) -> T:
        """Return the result of `attempt`, and retry it while its error is retryable and the budget lasts.

        Uses full jitter and honours `Retry-After`; a pause that would outlast the budget is shortened once.
        Raises the last ActionError.
        """
        tries, may_retry_once = 0, True
        while True:
            tries += 1
            try:
                return attempt()
            except ActionError as error:
                error.tries = tries
                pause = self._pause(error, tries, may_retry_once=may_retry_once)
                if pause is None:
                    raise
                may_retry_once = may_retry_once and not error.retry_once_after
                self._log(f"Try {tries}: {error.headline} Trying again in {pause:.1f} s.")
                self.clock.sleep(pause)

    def _pause(self, error: ActionError, tries: int, *, may_retry_once: bool) -> float | None:
        """Return the seconds to wait before the next try, or `None` to stop trying."""
        if error.retry_once_after and may_retry_once:
            pause = error.retry_once_after + self.clock.random()
            return pause if pause < self._left() else None
        if not error.retryable or tries >= error.max_tries:
            return None
        ceiling = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** min(tries - 1, 10))
        return self._fitting(error, ceiling * self.clock.random())

    def _fitting(self, error: ActionError, backoff: float) -> float | None:
        """Return a pause that leaves time for another try, or `None` if the budget is too short for one."""
        requested, left = error.retry_after or 0.0, self._left()
        error.wait_was_too_long = 0.0 < requested >= left
        # The backoff is added to the server's `Retry-After`, so that the jobs of a matrix do not all retry at once.
        if requested + backoff < left:
            return requested + backoff
        last = max(requested, left - _LAST_TRY_SECONDS)
        # A shorter pause would only add load to a server that is down.
        return last if _FIRST_BACKOFF_SECONDS <= last < left else None

    def _left(self) -> float:
        return self._deadline - self.clock.monotonic()

    def _timeout(self) -> httpx.Timeout:
        left = self._left()
        if left <= 0:
            raise TimedOutError("the time allowed by `timeout` is used up")
        connect, read = min(_CONNECT_SECONDS, left), min(_READ_SECONDS, left)
        return httpx.Timeout(connect=connect, read=read, write=read, pool=connect)

    def _read(self, response: httpx.Response) -> Reply:
        if response.is_redirect:
            # A credential must not follow a redirect, because the workflow did not name its target.
            target = one_line(response.headers.get("location", "nowhere"), 100)
            raise UnusableResponseError(
                f"a redirect ({response.status_code}) to {target}", response.status_code
            )
        reply = Reply(response.status_code, response.headers, b"")
        try:
            return replace(reply, body=_body(response))
        except UnusableResponseError as error:
            if reply.is_retryable:
                # A gateway's error page may have any format: its status is enough.
                return reply
            raise UnusableResponseError(str(error), reply.status) from error


def _body(response: httpx.Response) -> bytes:
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        # Only `identity` was requested: a few kilobytes of nested gzip decompress to gigabytes.
        raise UnusableResponseError(f"the content encoding {one_line(coding, 40)}, which was not requested")
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MAX_RESPONSE_BYTES:
            raise UnusableResponseError("more than 1 MiB")
    return bytes(body)


def _depth(value: object) -> int:
    """Return the nesting depth of objects and arrays, computed without recursion."""
    depth, level = 0, [value]
    while level := [it for it in level if isinstance(it, dict | list)]:
        depth += 1
        level = [inner for it in level for inner in (it.values() if isinstance(it, dict) else it)]
    return depth


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise _unreachable(error) from error
    except httpx.TimeoutException as error:
        raise TimedOutError("the request timed out") from error
    except httpx.ProxyError as error:
        refusal = one_line(str(error))
        # httpx passes on only the proxy's status line.
        failure_of = RefusedByProxyError if re.match(r"4[0-9][0-9]\b", refusal) else UnreachableError
        raise failure_of(f"the proxy responded with {refusal}") from error
    except httpx.TransportError as error:
        failure = find_failure(error)
        if failure:
            problem, words = failure
            raise CertificateError(words, problem) from error
        raise _unreachable(error) from error
    except httpx.HTTPError as error:
        raise UnusableResponseError("a body that cannot be decoded") from error


def _unreachable(error: httpx.TransportError) -> UnreachableError:
    words = "the connection timed out" if isinstance(error, httpx.ConnectTimeout) else one_line(str(error))
    if isinstance(error, ProxyConnectError):
        return UnreachableProxyError(words, error.variable)
    origin = _origin_of(error)
    if isinstance(origin, socket.gaierror) and origin.errno in _UNKNOWN_NAME:
        return UnknownNameError(words)
    return UnreachableError(words or type(error).__name__)


def _origin_of(error: BaseException) -> BaseException:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def open_client(
    *,
    transport: httpx.BaseTransport | None,
    ca_certificate: str,
    environ: Mapping[str, str] | None = None,
    run: str = "",
) -> httpx.Client:
    """Return a client that trusts the system's roots and `ca_certificate` (PEM), with the proxy in `environ`.

    `run` is added to the User-Agent. Raises UnusableProxyError, or OSError if OpenSSL cannot use a file.
    """
    return httpx.Client(
        transport=transport or open_route(Proxies.from_environ(environ or {}), ca_certificate),
        trust_env=False,
        follow_redirects=False,
        headers={
            "User-Agent": f"sentryagent-actions (+https://github.com/sentryagent/toolkit{run})",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        },
    )
