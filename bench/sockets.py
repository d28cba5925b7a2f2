"""Load over keep-alive sockets: from a separate process, at a given rate, with the latency of each request.

Also as much as a server takes, if wrk is missing.
"""

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context

from bench.load import CONNECTIONS, PATIENCE_SECONDS, LoadFailed, Outcome, Target


def most(target: Target, requests: Sequence[bytes], seconds: float) -> Outcome:
    """Send the requests, each once, as fast as the server answers; raises `LoadFailed`."""
    return _Drive(target, requests, seconds, rate=float("inf")).run()


Paced = Callable[[Target, Sequence[bytes], float, float], Outcome]
"""Sends the requests, each once, for some seconds at a rate of requests per second; raises `LoadFailed`."""


@contextmanager
def pacer() -> Iterator[Paced]:
    """Start a process that sends at a given rate, and end it with the block.

    In this process, the mock and the disturbances would hold the interpreter's lock, and the load's wait for the lock
    would count as the server's latency.
    """
    # Not with fork, which copies locks that other threads hold.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(time.perf_counter).result()  # started before the measurement, which it would disturb
        yield lambda *load: pool.submit(_paced, *load).result()


def _paced(target: Target, requests: Sequence[bytes], seconds: float, rate: float) -> Outcome:
    """Send requests when they are due, even if earlier ones have no response yet: a stalled server cannot hide it."""
    return _Drive(target, requests, seconds, rate).run()


class _Connection:
    """A keep-alive connection with at most one request in flight, which was due at `due`."""

    def __init__(self, port: int) -> None:
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self.due = 0.0
        self._received = b""

    def fileno(self) -> int:
        """Return the file descriptor of its socket, for `select`."""
        return self.stream.fileno()

    def send(self, request: bytes, due: float) -> None:
        """Send a request."""
        self.due, self._received = due, b""
        self.stream.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Return status and body, or None while the response is incomplete; raises `LoadFailed`."""
        chunk = self.stream.recv(65_536)
        if not chunk:
            raise LoadFailed("the server closed a connection that it should keep open")
        self._received += chunk
        head, is_whole, body = self._received.partition(b"\r\n\r\n")
        if not is_whole or len(body) < _content_length(head):
            return None
        return int(head[9:12]), body


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    raise LoadFailed("a response has no Content-Length, which this client needs")


@dataclass(slots=True)
class _Drive:
    """One load, from its start to its last response; times are readings of the performance counter."""

    target: Target
    requests: Sequence[bytes]
    seconds: float
    rate: float
    idle: list[_Connection] = field(default_factory=list)
    busy: set[_Connection] = field(default_factory=set)
    sent: int = 0
    began: float = 0.0
    ended: float | None = None
    in_time: int = 0
    tokens: int = 0
    refusals: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def run(self) -> Outcome:
        """Send the requests, receive the responses, and count."""
        connections = [_Connection(self.target.port) for _ in range(CONNECTIONS)]
        self.idle = list(connections)
        try:
            return self._run()
        finally:
            for connection in connections:
                connection.stream.close()

    def _run(self) -> Outcome:
        self.began = now = time.perf_counter()
        while self.ended is None or self.busy:
            if self.ended is None:
                self._send_what_is_due(now)
            elif now > self.ended + PATIENCE_SECONDS:
                raise LoadFailed(f"{len(self.busy)} requests had no response after {PATIENCE_SECONDS} s")
            ready, _, _ = select.select(self.busy, (), (), self._pause(now))
            now = time.perf_counter()
            for connection in ready:
                self._receive(connection, now)
        first_refusal = self.refusals[0] if self.refusals else ""
        seconds = self.ended - self.began
        return Outcome(seconds, self.in_time, self.tokens, len(self.refusals), first_refusal, self.latencies)

    def _next_due(self) -> float:
        return self.began + self.sent / self.rate

    def _send_what_is_due(self, now: float) -> None:
        while self.idle and self.sent < len(self.requests) and self._next_due() <= now:
            connection = self.idle.pop(0)  # in turn: a server may close a silent connection
            # At full rate all requests are due at once, so a latency counts from the time of sending.
            connection.send(self.requests[self.sent], max(self._next_due(), 0 if self.is_paced else now))
            self.busy.add(connection)
            self.sent += 1
        if self.sent == len(self.requests) or now - self.began >= self.seconds:
            self.ended = now

    @property
    def is_paced(self) -> bool:
        """Whether the rate is limited."""
        return self.rate != float("inf")

    def _pause(self, now: float) -> float:
        """Return how long to wait for responses, in seconds: at most until the next request is due."""
        return max(0.0, min(self._next_due() - now, 0.05)) if self.idle and self.ended is None else 0.05

    def _receive(self, connection: _Connection, now: float) -> None:
        answer = connection.receive()
        if answer is None:
            return
        self.busy.remove(connection)
        self.idle.append(connection)
        self._count(*answer)
        self.latencies.append(now - connection.due)

    def _count(self, status: int, body: bytes) -> None:
        if status == 200 and b'"%b"' % self.target.token_field.encode() in body:
            self.tokens += 1
            self.in_time += self.ended is None
        else:
            self.refusals.append(f"{status} {body.decode(errors='replace')}")
