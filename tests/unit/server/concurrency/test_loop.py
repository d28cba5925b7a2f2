"""HTTP requests on the loop: bodies are read whole or refused, and no thread waits for a client."""

import asyncio
import signal
import threading

import pytest

from kit.rsgi import Client, Scope
from sentryagent_idp.concurrency import loop
from sentryagent_idp.concurrency.request_greenlet import current_request
from sentryagent_idp.errors import PayloadTooLarge, RequestTimeout, ServiceError, ValidationFailed

KIB = 1024


class Application:
    """A WSGI application that records its request."""

    def __init__(self):
        self.environ = None
        self.body = None

    def __call__(self, environ, start_response):
        self.environ, self.body = environ, environ["wsgi.input"].read()
        self.greenlet, self.thread = current_request(), threading.get_ident()
        if environ["PATH_INFO"] == "/broken":
            raise SystemExit("broken")
        start_response("200 OK", [("X-A", "b")])
        return [b"ans", b"wer"]


@pytest.fixture
def ask(monkeypatch):
    """Send a request through the loop; return the application and the client."""
    monkeypatch.setattr(loop, "_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(loop, "_BODY_SECONDS", 0.05)
    application = Application()

    def run(scope, client, on_loop=(), large=()):
        rsgi = loop.RsgiApplication(application, 1, on_loop, large)

        async def one():
            rsgi.__rsgi_init__(asyncio.get_running_loop())
            await asyncio.wait_for(rsgi.__rsgi__(scope, client), 10)

        asyncio.run(one())
        return application, client

    return run


def test_a_whole_request_is_answered_by_the_application(ask):
    """The application gets the body, headers and peer; the client gets its response."""
    application, client = ask(
        Scope(("content-length", "5"), ("content-type", "text/plain")), Client(b"he", b"llo")
    )

    assert client.answer == (200, [("X-A", "b")], b"answer")
    assert application.body == b"hello"
    wanted = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/api/v1/oidc/token",
        "QUERY_STRING": "a=1",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "REMOTE_ADDR": "198.51.100.7",
    }
    assert {name: application.environ[name] for name in wanted} == wanted
    assert loop.REFUSAL not in application.environ


@pytest.mark.parametrize(
    ("client", "address"),
    [("198.51.100.7:4431", "198.51.100.7"), ("[2001:db8::1]:443", "2001:db8::1"), ("[::ffff:192.0.2.1]:80", "::ffff:192.0.2.1")],
)  # fmt: skip
def test_the_peer_has_an_address_without_port(ask, client, address):
    """The peer's address has no port; IPv6 addresses are in brackets."""
    application, _ = ask(Scope(client=client), Client())

    assert application.environ["REMOTE_ADDR"] == address


def test_a_path_outside_ascii_is_passed_on_as_wsgi_wants_it(ask):
    """The path is the UTF-8 bytes, each as one character (PEP 3333)."""
    application, _ = ask(Scope(path="/é"), Client())

    assert application.environ["PATH_INFO"] == "/\xc3\xa9"


def test_lines_of_one_name_are_joined(ask):
    """Header lines of the same name are joined (RFC 9110, 5.3): a proxy may add a line of its own."""
    application, _ = ask(Scope(("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2")), Client())

    assert application.environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.1,192.0.2.2"


@pytest.mark.parametrize("name", ["x_forwarded_for", "content_type", "authorization_", "x-a_b"])
def test_a_name_with_an_underscore_is_refused(ask, name):
    """A header name with an underscore is refused, because WSGI cannot tell it from one with a hyphen."""
    application, _ = ask(Scope(("x-forwarded-for", "192.0.2.1"), (name, "192.0.2.9")), Client())

    assert isinstance(application.environ[loop.REFUSAL], ValidationFailed)
    assert application.environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("name", "is_refused"),
    [
        ("authorization", True),
        ("content-type", True),
        ("if-match", True),
        ("x-forwarded-for", True),
        ("user-agent", False),
        ("cf-ipcity", False),
    ],
)
def test_a_deciding_field_that_cannot_be_read_does_not_count_as_absent(ask, name, is_refused):
    """An unreadable header that affects the decision is an error; others are ignored, for example a city's name."""
    application, _ = ask(Scope((name, "São Paulo")), Client())

    assert (loop.REFUSAL in application.environ) == is_refused


CHUNKED = ("transfer-encoding", "chunked")


@pytest.mark.parametrize(
    ("field", "client", "refusal"),
    [
        (("content-length", "5"), Client(b"he", ends="never"), RequestTimeout),
        (("content-length", "5"), Client(b"he", ends="early"), ValidationFailed),
        (CHUNKED, Client(b"he", ends="never"), RequestTimeout),
        (CHUNKED, Client(b"he", ends="early"), ValidationFailed),
        (("content-length", str(32 * KIB + 1)), Client(b"x" * (32 * KIB + 1)), PayloadTooLarge),
        (("content-length", "9" * 18), Client(*[b"x" * KIB] * 2000), PayloadTooLarge),
        (CHUNKED, Client(*[b"x" * KIB] * 33), PayloadTooLarge),
        (CHUNKED, Client(*[b"x" * KIB] * 2000), PayloadTooLarge),
    ],
)
def test_a_body_that_is_not_whole_or_too_large_is_refused(ask, field, client, refusal):
    """The application gets the reason and no body, and the connection is closed after reading at most 1 MiB."""
    application, client = ask(Scope(field), client)

    assert type(application.environ[loop.REFUSAL]) is refusal
    assert application.body == b""
    assert ("Connection", "close") in client.answer[1]
    assert client.read <= 1024 * KIB + KIB


@pytest.mark.parametrize("field", [("content-length", str(32 * KIB)), CHUNKED])
def test_the_largest_body_is_taken(ask, field):
    """A body of 32 KiB is accepted, in one part or many."""
    application, _ = ask(Scope(field), Client(*[b"x" * KIB] * 32))

    assert application.body == b"x" * 32 * KIB
    assert loop.REFUSAL not in application.environ


LARGE = [("POST", "/large")]
MIB = 1024 * KIB


@pytest.mark.parametrize("field", [("content-length", str(MIB)), CHUNKED, ("content-length", str(32 * KIB))])
def test_the_largest_body_of_a_large_route(ask, field):
    """On a large route a body of 1 MiB is accepted, and the connection stays open."""
    size = 32 * KIB if field[1] == str(32 * KIB) else MIB
    application, client = ask(Scope(field, path="/large"), Client(*[b"x" * KIB] * (size // KIB)), large=LARGE)

    assert len(application.body) == size
    assert client.answer == (200, [("X-A", "b")], b"answer")


@pytest.mark.parametrize(
    ("field", "client", "refusal"),
    [
        (CHUNKED, Client(b"he", ends="never"), RequestTimeout),
        (CHUNKED, Client(b"he", ends="early"), ValidationFailed),
        (("content-length", str(MIB + 1)), Client(*[b"x" * KIB] * 1025), PayloadTooLarge),
        (("content-length", "9" * 18), Client(*[b"x" * KIB] * 5000), PayloadTooLarge),
    ],
)
def test_a_large_body_that_is_not_whole_or_too_large(ask, monkeypatch, field, client, refusal):
    """The application gets the reason, and the connection is closed."""
    seen = []

    def application(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except ServiceError as error:
            seen.append(type(error))
        start_response("400 Bad Request", [])
        return [b""]

    monkeypatch.setattr(Application, "__call__", lambda _, *it: application(*it))
    _, client = ask(Scope(field, path="/large"), client, large=LARGE)

    assert seen == [refusal]
    assert client.answer == (400, [("Connection", "close")], b"")
    assert client.read <= MIB + KIB


@pytest.mark.parametrize("ends", ["well", "never", "early"])
def test_a_large_body_that_nobody_asks_for(ask, monkeypatch, ends):
    """A body that the application does not read is discarded; after the response the connection is closed."""

    def refuse(_, start_response):
        start_response("401 Unauthorized", [])
        return [b"no"]

    monkeypatch.setattr(Application, "__call__", lambda _, *it: refuse(*it))
    _, client = ask(Scope(CHUNKED, path="/large"), Client(*[b"x" * KIB] * 900, ends=ends), large=LARGE)

    assert client.answer == (401, [("Connection", "close")], b"no")
    assert client.read == 900 * KIB


def test_slow_large_bodies_leave_threads_for_other_requests(monkeypatch):
    """Slow large bodies, however many, leave threads free for other requests."""
    monkeypatch.setattr(loop, "_BODY_SECONDS", 600)
    rsgi = loop.RsgiApplication(Application(), loop._LARGE_AT_ONCE + 1, large=LARGE)
    other = Client()

    async def all_of_them():
        slow = [rsgi.__rsgi__(Scope(CHUNKED, path="/large"), Client(b"x", ends="never")) for _ in range(9)]
        waiting = [asyncio.ensure_future(request) for request in slow]
        await asyncio.sleep(0)
        await asyncio.wait_for(rsgi.__rsgi__(Scope(path="/other"), other), 60)
        assert not any(request.done() for request in waiting)

    asyncio.run(all_of_them())

    assert other.answer[0] == 200


def test_slow_large_bodies_end_together(monkeypatch):
    """The time limit counts from the headers, so a request that waits for slower ones also ends in time."""
    monkeypatch.setattr(loop, "_BODY_SECONDS", 0.05)
    refusals, rows = [], 3 * loop._LARGE_AT_ONCE

    def application(environ, start_response):
        try:
            if loop.REFUSAL in environ:
                raise environ[loop.REFUSAL]
            environ["wsgi.input"].read()
        except RequestTimeout as refusal:
            refusals.append(refusal.message.partition(";")[0])
        start_response("408 Request Timeout", [])
        return [b""]

    rsgi = loop.RsgiApplication(application, rows, large=LARGE)
    slow = [Client(b"x", ends="never") for _ in range(rows)]

    async def all_of_them():
        await asyncio.gather(*(rsgi.__rsgi__(Scope(CHUNKED, path="/large"), client) for client in slow))

    asyncio.run(all_of_them())

    assert len(refusals) == rows
    assert set(refusals) == {
        "The body did not arrive within 0.05 s",
        "Other large bodies are arriving too slowly",
    }
    assert all(client.answer == (408, [("Connection", "close")], b"") for client in slow)


@pytest.mark.parametrize("on_loop", [[], [("POST", "/broken")]], ids=["thread", "loop"])
def test_what_an_application_raises_is_a_500(ask, on_loop):
    """An exception in the application is a 500, and the next request succeeds."""
    _, broken = ask(Scope(path="/broken"), Client(), on_loop)
    _, sound = ask(Scope(), Client(), on_loop)

    assert broken.answer == (500, [], b"")
    assert sound.answer[0] == 200


def test_requests_of_some_routes_are_answered_on_the_loop(ask):
    """Each request on the loop has its own greenlet, so that it can wait without blocking the others."""
    application, client = ask(Scope(path="/x"), Client(), [("POST", "/x")])
    assert client.answer == (200, [("X-A", "b")], b"answer")
    assert application.greenlet is not None
    assert application.thread == threading.get_ident()

    application, _ = ask(Scope(path="/y"), Client(), [("POST", "/x")])
    assert application.greenlet is None
    assert application.thread != threading.get_ident()


def test_no_thread_waits_for_a_client(ask, monkeypatch):
    """While a body is incomplete, the only thread can serve another request."""
    monkeypatch.setattr(loop, "_BODY_SECONDS", 30)
    application = Application()
    rsgi = loop.RsgiApplication(application, threads=1)

    async def both():
        rsgi.__rsgi_init__(asyncio.get_running_loop())
        slow = asyncio.ensure_future(
            rsgi.__rsgi__(Scope(("content-length", "5")), Client(b"he", ends="never"))
        )
        quick = Client()
        await asyncio.wait_for(rsgi.__rsgi__(Scope(), quick), 10)
        is_waiting = not slow.done()
        slow.cancel()
        return quick.answer, is_waiting

    answer, is_waiting = asyncio.run(both())

    assert answer[0] == 200
    assert is_waiting


def test_only_bodies_that_take_too_long_are_given_up():
    """Each body whose time is over is given up; the first that still has time, and all after it, go on arriving."""

    async def run():
        rsgi = loop.RsgiApplication(Application(), 1)
        running = asyncio.get_running_loop()
        waits = [asyncio.create_task(rsgi._arrived(running.create_future())) for _ in range(4)]
        await asyncio.sleep(0)
        for body, began in zip(rsgi._arriving, (0, 5, 10, 15), strict=True):
            rsgi._arriving[body] = began
        rsgi._give_up_late(now=16)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        outcomes = [wait.done() and type(wait.exception()) for wait in waits]
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return outcomes

    assert asyncio.run(run()) == [TimeoutError, TimeoutError, False, False]


def test_sigterm_ends_connections_with_their_answers(monkeypatch):
    """After SIGTERM a request still gets its response, with `Connection: close`; then granian is stopped."""
    monkeypatch.setattr(loop, "_LAST_SECONDS", 0)
    closed = []
    monkeypatch.setattr(loop.listeners, "begin_no_connection", lambda: closed.append(True))
    rsgi = loop.RsgiApplication(Application(), threads=1)

    async def one():
        running, told = asyncio.get_running_loop(), asyncio.Event()
        running.add_signal_handler(signal.SIGINT, told.set)
        rsgi.__rsgi_init__(running)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(told.wait(), 10)
        late = Client()
        await asyncio.wait_for(rsgi.__rsgi__(Scope(), late), 10)
        return late.answer

    assert asyncio.run(one()) == (200, [("X-A", "b"), ("Connection", "close")], b"answer")
    assert closed == [True]
