"""Both load generators against a real HTTP server: their counts match the requests that the server received."""

import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench import sockets, wrk
from bench.load import LoadFailed, Target
from bench.subject import post

LONG = 20.0
"""The seconds of a turn that ends earlier, because its requests are used up."""


class Server(ThreadingHTTPServer):
    """Records the bodies of POST requests; responds with a token or, if the body says so, a refusal or nothing."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies = []
        self.target = Target(self.server_port, "access_token", "/health")

    def handle_error(self, request, client_address):
        """Ignore errors: wrk does not close its connections cleanly."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: a delayed acknowledgement would cost 40 ms

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.bodies.append(body)
        if "hang up" in body:
            self.close_connection = True
        elif "refuse" in body:
            self.answer(401, b'{"code": "INVALID_OIDC_TOKEN"}')
        else:
            self.answer(200, b"{}" if "empty" in body else b'{"access_token": "x"}')

    def do_GET(self):
        self.answer(200, b"{}")

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A running test server."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(params=["sockets", "wrk"])
def most(request):
    """Each load generator at full rate."""
    if request.param == "sockets":
        return sockets.most
    program = wrk.program()
    if program is None:
        pytest.skip("no wrk on PATH")
    return partial(wrk.most, program)


def requests(server, *bodies):
    return [post(server.server_port, "/token", body) for body in bodies]


def test_every_request_is_sent_once_and_every_token_is_counted(server, most):
    """All issued tokens are counted, including those in flight when the requests are used up."""
    bodies = [f"{number}" for number in range(500)]

    outcome = most(server.target, requests(server, *bodies), LONG)

    assert sorted(server.bodies) == sorted(bodies)
    assert (outcome.tokens, outcome.refused) == (500, 0)
    assert 0 < outcome.in_time <= 500


@pytest.mark.parametrize(
    ("body", "told"),
    [("refuse", '401 {"code": "INVALID_OIDC_TOKEN"}'), ("empty", "200 {}")],
)
def test_an_answer_without_a_token_is_told(server, most, body, told):
    """A refusal or a 200 without a token, at any time in the run, does not count as a token and is reported."""
    outcome = most(server.target, requests(server, "1", body, *map(str, range(400))), LONG)

    assert outcome.refused == 1
    assert outcome.first_refusal == told
    assert outcome.tokens == 401


def test_the_time_ends_a_turn(server, most):
    """A turn ends when its time is up; tokens that are still in flight count as issued."""
    outcome = most(server.target, requests(server, *map(str, range(50_000))), 0.1)

    assert outcome.seconds == pytest.approx(0.1, abs=0.09)
    assert len(server.bodies) == outcome.tokens >= outcome.in_time > 0


def test_a_given_rate_is_kept(server):
    """Requests are sent at the given rate, and each has a latency."""
    with sockets.pacer() as paced:
        outcome = paced(server.target, requests(server, *map(str, range(100))), LONG, 500.0)

    assert outcome.seconds >= 99 / 500
    assert len(outcome.latencies) == outcome.tokens == 100
    assert min(outcome.latencies) > 0


def test_the_pace_does_not_depend_on_this_process(server, monkeypatch):
    """The load runs in a separate interpreter, so that this process's work does not count as the server's latency."""
    monkeypatch.delattr(sockets, "_Drive")

    with sockets.pacer() as paced:
        outcome = paced(server.target, requests(server, "1", "2"), LONG, 500.0)

    assert outcome.tokens == 2


def test_a_load_that_fails_in_its_process_fails_here(server):
    """An error in the load's process is raised in this process with its cause."""
    with sockets.pacer() as paced, pytest.raises(LoadFailed, match="closed a connection"):
        paced(server.target, requests(server, "hang up"), LONG, 500.0)
