"""Small servers on 127.0.0.1, and requests sent as raw bytes."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

PATIENCE_SECONDS = 30


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, answer = self.server.answer(urlsplit(self.path).path, self.headers, body)
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET  # noqa: N815 - the name that http.server expects

    def log_message(self, *_: object) -> None:
        """Log nothing; a test that needs the requests records them itself."""


@contextlib.contextmanager
def serving(answer: Callable[[str, Any, bytes], tuple[int, Any]]) -> Iterator[str]:
    """The URL of an HTTP server whose `answer(path, headers, body)` returns a status and JSON."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.answer = answer
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that passes one connection after the other to `serve`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            # Shutting the listener down ends `accept`.
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        serve(connection)

        thread = Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def drip(connection: socket.socket, begin: bytes, drop: bytes) -> None:
    """Respond to a request with `begin`, then repeat `drop` until the client closes the connection."""
    with contextlib.suppress(ConnectionError):  # the client has closed the connection, as expected
        connection.recv(65536)
        connection.sendall(begin)
        connection.settimeout(0.01)
        while not _is_shut(connection):
            connection.sendall(drop)


def _is_shut(connection: socket.socket) -> bool:
    try:
        return connection.recv(65536) == b""
    except TimeoutError:
        return False


def raw(url: str, *parts: bytes) -> bytes:
    """Send bytes over a new connection and return the response up to its end."""
    address = urlsplit(url)
    received = b""
    with (
        socket.create_connection((address.hostname, address.port), timeout=PATIENCE_SECONDS) as connection,
        # A server may reset the connection early; the response received until then counts.
        contextlib.suppress(ConnectionError),
    ):
        for part in parts:
            connection.sendall(part)
        while more := connection.recv(65536):
            received += more
    return received
