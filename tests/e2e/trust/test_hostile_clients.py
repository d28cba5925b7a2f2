"""Hostile clients with open connections: whatever they send or withhold, the provider still serves others."""

import contextlib
import resource
import socket
import struct

import pytest

PATH = "/api/v1/oidc/token"
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
PATIENCE_SECONDS = 30
RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def connect():
    """Open `count` connections and send some bytes over each; they stay open until the test ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with contextlib.ExitStack() as connections:

        def run(url, count, octets=b""):
            host, _, port = url.removeprefix("http://").partition(":")

            def one():
                address = (host, int(port))
                connection = connections.enter_context(socket.create_connection(address, PATIENCE_SECONDS))
                connection.sendall(octets)
                return connection

            return [one() for _ in range(count)]

        yield run


def received(connection):
    """Everything that the server sends until it closes the connection."""
    octets = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65_536):
            octets += more
    return octets


def goes_on(server):
    """Whether the server still serves others: /health and an exchange."""
    return server.http.get("/health").status_code == 200 and server.exchange().status_code == 200


@pytest.mark.parametrize(
    "half",
    [
        b'Content-Length: 1000\r\n\r\n{"token":',
        b'Content-Length: 100000\r\n\r\n{"token":',
        b'Transfer-Encoding: chunked\r\n\r\n9\r\n{"token":\r\n',
    ],
    ids=["small", "too_large", "chunked"],
)
def test_half_sent_bodies_are_waited_for_by_nobody(serve, connect, half):
    """Two hundred half-sent bodies do not block a provider with one worker; each gets a 408 and is closed."""
    server = serve()

    halves = connect(server.url, 200, HEAD + half)

    assert goes_on(server)
    answers = [received(half) for half in halves]
    assert {answer.split(b" ", 2)[1] for answer in answers} == {b"408"}
    assert all(b'"REQUEST_TIMEOUT"' in answer for answer in answers)


def test_silent_connections_are_closed(serve, connect):
    """1,100 silent connections, more than a listen backlog usually holds, and some with half a request head."""
    server = serve()

    silent = connect(server.url, 1100)
    halves = connect(server.url, 50, f"POST {PATH} HTTP/1.1\r\nHo".encode())
    resting = connect(server.url, 50, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")

    assert goes_on(server)
    assert {received(connection) for connection in (*silent, *halves)} == {b""}
    assert all(received(one).startswith(b"HTTP/1.1 200 ") for one in resting)


HALF = b'{"token":'
ABORTED = [
    HEAD + b"Content-Length: 1000\r\n\r\n" + HALF,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\n" + HALF + b"\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
]


def test_aborted_bodies_leave_nothing_behind(serve, connect, errors_in):
    """Forty aborted requests of each kind, closed or reset, are more than a worker has threads; none leaves an error."""
    server = serve()

    for sent in ABORTED:
        for connection in connect(server.url, 40, sent):
            connection.close()
        for connection in connect(server.url, 40, sent):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()

    assert goes_on(server)
    assert len(server.audit("token.issued")) == 1
    assert not errors_in()


def test_http_2_is_not_spoken(serve, connect):
    """HTTP/2 is refused: its aborted requests once kept a CPU and threads busy for ever."""
    server = serve()
    settings = b"\0\0\0\4\0\0\0\0\0"

    (connection,) = connect(server.url, 1, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)

    assert received(connection) == b""
    assert goes_on(server)


def test_clients_that_read_nothing_hold_nobody_up(serve, connect):
    """Clients that never read their responses do not block others: the responses wait in buffers."""
    server = serve()

    connect(server.url, 100, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50)

    assert goes_on(server)


def test_a_forged_twin_of_a_proxy_s_header_is_refused(serve, connect):
    """`X_Forwarded_For` is refused: Go's proxies sort header fields, so it would follow their own `X-Forwarded-For`."""
    server = serve()
    forged = b"X-Forwarded-For: 192.0.2.1\r\nX_Forwarded_For: 10.9.0.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"

    (connection,) = connect(server.url, 1, HEAD + forged)

    assert received(connection).startswith(b"HTTP/1.1 400 ")
