"""The mock's HTTP server, tested on the wire."""

import http.client
import socket
import ssl
from contextlib import closing

import httpx
import pytest

from kit.processes import PATIENCE_SECONDS
from mock_idp.server import MockIdp

JWKS = "/.well-known/jwks"


@pytest.fixture
def address(idp):
    host, _, port = idp.url.removeprefix("http://").partition(":")
    return host, int(port)


def _talk(address, *messages):
    """Send raw messages and return everything until the server closes the connection."""
    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
        for message in messages:
            connection.sendall(message)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


def test_a_connection_is_kept_for_the_next_request(address):
    """Connections are kept alive, so a client's pool needs only one."""
    with closing(http.client.HTTPConnection(*address)) as connection:
        connection.request("GET", JWKS)
        used = connection.sock
        first = connection.getresponse().read()
        connection.request("POST", "/_mock/keys/rotate", "{}")
        connection.getresponse().read()
        connection.request("GET", JWKS)
        second = connection.getresponse().read()

        assert connection.sock is used
        assert len(first) < len(second)


def test_a_body_that_nobody_reads_is_not_the_next_request(address):
    """The unused body of a GET is skipped and not parsed as the next request."""
    body = b"DELETE /_mock/faults HTTP/1.1\r\n\r\n"
    request = b"GET %s HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n%s" % (JWKS.encode(), len(body), body)
    last = b"GET /_mock/health HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"

    answer = _talk(address, request, last)

    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.endswith(b'{"status":"ok"}\n')


def test_a_client_that_waits_before_its_body_is_told_to_go_on(address):
    """For `Expect: 100-continue`, the 100 is sent at once, not with the response."""
    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(
            b"POST /_mock/token HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        first = connection.recv(65536)
        connection.sendall(b"{}")
        second = connection.recv(65536)

    assert first.startswith(b"HTTP/1.1 100 ")
    assert second.startswith(b"HTTP/1.1 200 ")


def test_an_old_client_is_answered_and_left(address):
    """An HTTP/1.0 connection is closed after the response."""
    assert _talk(address, b"GET /_mock/health HTTP/1.0\r\n\r\n").endswith(b'{"status":"ok"}\n')


def test_an_answer_without_a_body_keeps_the_connection_too(address):
    """A 204, without length and body, and a response to HEAD, without body, keep the connection alive."""
    requests = (
        b"DELETE /_mock/faults HTTP/1.1\r\nHost: m\r\n\r\n",
        b"HEAD %s HTTP/1.1\r\nHost: m\r\n\r\n" % JWKS.encode(),
        b"GET /_mock/health HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n",
    )

    answer = _talk(address, *requests)

    assert [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/")] == [
        b"HTTP/1.1 204 NO CONTENT",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK",
    ]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"x" * 70_000, 414),
        (b"POST /_mock/token HTTP/1.1\r\nContent-Length: ten\r\n\r\n", 400),
        (b"POST /_mock/token HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /_mock/token HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"POST /_mock/token HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_and_ends_the_connection(address, idp, request_bytes, status):
    """An invalid request is refused, and the next connection works."""
    answer = _talk(address, request_bytes)

    assert f" {status} ".encode() in answer.splitlines()[0]
    assert httpx.get(f"{idp.url}/_mock/health").status_code == 200


def test_no_version_of_python_is_told(idp):
    """The Server header does not reveal Python's version."""
    assert httpx.get(idp.url).headers["Server"] == "mock-idp"


def test_a_path_that_the_mock_does_not_have_is_named(idp):
    """The 404 names the unknown path, because an action whose `api-url` is the mock shows the message in its log."""
    answer = httpx.post(f"{idp.url}/api/v1/oidc/token")

    assert answer.status_code == 404
    assert answer.json()["message"] == "POST /api/v1/oidc/token: the mock has no such path"


def test_the_end_of_the_mock_ends_kept_connections(ring):
    """When the mock stops, it closes kept connections, so that clients do not wait."""
    with httpx.Client(trust_env=False) as client:
        with MockIdp(ring=ring) as idp:
            client.get(idp.url + JWKS)

        with pytest.raises(httpx.TransportError):
            client.get(idp.url + JWKS)


def test_a_client_that_never_speaks_tls_holds_nobody_up(ring, certificate):
    """A client that never starts its TLS handshake does not block others."""
    with MockIdp(ring=ring, tls=certificate.context) as idp:
        port = int(idp.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):
            trusted = ssl.create_default_context(cafile=certificate.ca_file)
            answer = httpx.get(f"{idp.url}/_mock/health", verify=trusted, trust_env=False)

    assert answer.json() == {"status": "ok"}
