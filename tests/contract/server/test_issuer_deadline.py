"""Issuers, proxies and resolvers that hang or drip: one deadline for a whole fetch, and clear errors."""

import queue
import socket
import threading
from contextlib import ExitStack

import httpx
import pytest
from structlog.testing import capture_logs

from kit.clock import RunningClock, Schedule
from kit.http import drip, listening
from kit.processes import PATIENCE_SECONDS, free_port
from sentryagent_idp.errors import InvalidOidcToken, IssuerUnavailable
from sentryagent_idp.github.issuer_keys import GithubIssuerKeys, in_daemon_thread

BUDGET = 0.4
"""Seconds for a fetch that is meant to time out."""


@pytest.fixture
def clock():
    return RunningClock()


@pytest.fixture
def schedule(clock):
    return Schedule(clock)


@pytest.fixture
def make_keys(clock, schedule):
    """Creates the key cache of an issuer with a short deadline and, if given, a proxy."""
    with ExitStack() as clients:

        def make(issuer, *, proxy=None, budget=BUDGET):
            client = clients.enter_context(httpx.Client(trust_env=False, proxy=proxy))
            return GithubIssuerKeys(issuer, client, monotonic=clock, schedule=schedule, fetch_seconds=budget)

        yield make


def wait_for_fetches():
    """Wait until no fetch has a running thread."""
    for thread in threading.enumerate():
        if thread.name == "issuer-keys":
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a fetch that was given up still runs"


def dripping(begin, drop, ended):
    """Return a server that sends `begin`, then `drop` repeatedly, until the peer closes the connection."""

    def serve(connection):
        drip(connection, begin, drop)
        ended.set()

    return serve


OK = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "nothing at all": ("http", b"", b"", False),
    "a status line": ("http", b"HTTP/1.1 20", b"0", False),
    "a header": ("http", OK + b"X-Slow: ", b"a", False),
    "headers": ("http", OK, b"A: b\r\n", False),
    "a body": ("http", OK + b"Content-Length: 9999\r\n\r\n", b" ", False),
    "chunks": ("http", OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", False),
    "a TLS handshake": ("https", b"\x16\x03\x03\x3f\xff", b"\x02", False),
    "a proxy's answer": ("https", b"HTTP/1.1 200 Connection established\r\nVia: ", b"a", True),
}


@pytest.mark.parametrize(("scheme", "begin", "drop", "is_proxy"), DRIPS.values(), ids=list(DRIPS))
def test_an_issuer_that_drips_fails_in_time(scheme, begin, drop, is_proxy, make_keys, schedule):
    """A response that drips fails at the deadline and is logged; its thread and connection end."""
    ended = threading.Event()
    with listening(dripping(begin, drop, ended)) as port:
        place = f"127.0.0.1:{port}"
        keys = (
            make_keys("https://issuer.example", proxy=f"http://{place}")
            if is_proxy
            else make_keys(f"{scheme}://{place}")
        )
        with capture_logs() as logs:
            keys.warm_up()
        error = f"the response from {place} timed out"
        assert keys.status() == {"state": "missing", "ageSeconds": None, "lastError": error}
        assert [(it["event"], it["log_level"], it["error"]) for it in logs] == [
            ("issuer_keys_not_refreshed", "warning", error)
        ]
        assert [delay for delay, _ in schedule.later] == [30]
        assert ended.wait(PATIENCE_SECONDS)
        wait_for_fetches()


class Resolver:
    """Name lookups that hang until they are released, with a count."""

    def __init__(self, monkeypatch):
        self.count = 0
        self.is_free = threading.Event()
        self.is_free.set()
        self._look_up = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, *args, **kwargs):
        self.count += 1
        assert self.is_free.wait(PATIENCE_SECONDS)
        return self._look_up(*args, **kwargs)


@pytest.fixture
def resolver(monkeypatch):
    running = Resolver(monkeypatch)
    yield running
    running.is_free.set()
    wait_for_fetches()


def test_a_resolver_that_hangs_costs_two_threads_and_no_more(make_keys, mock_idp, resolver, schedule, clock):
    """Refreshes are retried every 30 s but never start a third hanging lookup; they recover with the resolver."""
    keys = make_keys(mock_idp.issuer)
    resolver.is_free.clear()
    keys.warm_up()
    first = keys.status()["lastError"]
    assert first.startswith(
        f"the connection to {mock_idp.issuer.removeprefix('http://')} timed out; check its DNS lookup"
    )
    assert [schedule.run_next() for _ in range(10)] == [30] * 10
    assert resolver.count == 2
    assert sum(it.name == "issuer-keys" for it in threading.enumerate()) == 2
    assert keys.status()["lastError"] == (
        "2 earlier fetches are still hanging; check the DNS lookup of this machine"
    )
    resolver.is_free.set()
    wait_for_fetches()
    keys = make_keys(mock_idp.issuer, budget=PATIENCE_SECONDS)
    keys.warm_up()
    assert keys.status() == {"state": "fresh", "ageSeconds": 0, "lastError": None}


def test_a_fetch_can_begin_again_when_hung_ones_have_ended(make_keys, mock_idp, resolver, schedule, clock):
    """The slot of a hung fetch is free again when its thread ends."""
    keys = make_keys(mock_idp.issuer)
    resolver.is_free.clear()
    keys.warm_up()
    schedule.run_next()
    resolver.is_free.set()
    wait_for_fetches()
    schedule.run_next()
    assert resolver.count >= 3


def test_a_connection_that_comes_after_the_deadline_is_cut(make_keys, resolver):
    """If the lookup returns after the deadline, the connection is closed so that it cannot hang."""
    ended = threading.Event()
    with listening(dripping(OK, b"A: b\r\n", ended)) as port:
        keys = make_keys(f"http://127.0.0.1:{port}")
        resolver.is_free.clear()
        keys.warm_up()
        resolver.is_free.set()
        wait_for_fetches()
        assert ended.wait(PATIENCE_SECONDS)
    assert keys.status()["lastError"].startswith(f"the connection to 127.0.0.1:{port} timed out")


def test_held_keys_serve_while_a_look_up_hangs(make_keys, mock_idp, resolver, clock, schedule):
    """Cached keys are found, unknown ones refused in time without more refreshes, and late results are dropped."""
    keys = make_keys(mock_idp.issuer, budget=PATIENCE_SECONDS)
    keys.warm_up()
    kid = mock_idp.state.ring.published[0].kid
    keys._fetch_seconds = BUDGET
    resolver.is_free.clear()
    before = resolver.count
    for number in range(100):
        with pytest.raises(InvalidOidcToken):
            keys.find(f"unknown-{number}")
        assert keys.find(kid)
    assert resolver.count == before + 1
    assert (keys.status()["state"], bool(keys.status()["lastError"])) == ("fresh", True)
    clock.offset += 24 * 3600 - 60
    assert keys.find(kid)
    assert keys.status()["state"] == "stale"
    resolver.is_free.set()
    wait_for_fetches()
    assert keys.status()["state"] == "stale"
    clock.offset += 120
    keys._fetch_seconds = PATIENCE_SECONDS
    assert keys.find(kid)
    assert keys.status() == {"state": "fresh", "ageSeconds": 0, "lastError": None}


def _answer(content):
    def serve(connection):
        connection.recv(65536)
        connection.sendall(content)

    return serve


def _last_error(keys):
    keys.warm_up()
    return keys.status()["lastError"]


def test_errors_name_the_place_and_the_cause(make_keys):
    """A closed port, a proxy's refusal and failing TLS are each reported with the host and the cause."""
    port = free_port()
    refused = f"no connection to 127.0.0.1:{port}: Connection refused"
    assert _last_error(make_keys(f"http://127.0.0.1:{port}", budget=PATIENCE_SECONDS)) == refused
    proxy = f"http://user:secret@127.0.0.1:{port}"
    assert _last_error(make_keys("https://issuer.example", proxy=proxy, budget=PATIENCE_SECONDS)) == refused

    with listening(_answer(b"HTTP/1.1 407 Proxy login\r\nContent-Length: 0\r\n\r\n")) as port:
        proxy = f"http://127.0.0.1:{port}"
        error = _last_error(make_keys("https://issuer.example", proxy=proxy, budget=PATIENCE_SECONDS))
        assert error == f"the proxy 127.0.0.1:{port} responds 407 Proxy login"
    with listening(_answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        error = _last_error(make_keys(f"https://127.0.0.1:{port}", budget=PATIENCE_SECONDS))
        assert error.startswith(f"TLS with 127.0.0.1:{port} fails: ")


@pytest.mark.parametrize(
    "cause", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")]
)
@pytest.mark.parametrize(
    ("proxy", "place"),
    [
        (None, "issuer.example"),
        ("http://proxy.example:3128", "proxy.example"),
        ("http://[2001:db8::7]:3128", "2001:db8::7"),
    ],
)
def test_a_name_that_does_not_resolve_is_told_as_such(cause, proxy, place, make_keys, monkeypatch):
    """The error names the host that does not resolve, the issuer or the proxy."""

    def fail(*_args, **_kwargs):
        raise cause

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    keys = make_keys("https://issuer.example", proxy=proxy, budget=PATIENCE_SECONDS)
    with pytest.raises(IssuerUnavailable):
        keys.find("any")
    assert keys.status()["lastError"] == (
        f"the name {place} does not resolve; check the name, HTTPS_PROXY and DNS"
    )


def test_default_schedule_runs_in_a_daemon_thread():
    """A refresh never keeps the process from exiting."""
    seen = queue.Queue()
    in_daemon_thread(0, lambda: seen.put(threading.current_thread()))
    thread = seen.get(timeout=PATIENCE_SECONDS)
    assert thread.daemon
    assert thread is not threading.current_thread()
    thread.join(PATIENCE_SECONDS)
