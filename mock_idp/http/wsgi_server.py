"""A small HTTP/1.1 server for one WSGI application, with keep-alive, TLS and connections that can really break.

Werkzeug's development server closes every connection, so it can neither show how a client reuses a connection nor issue
tokens quickly. Built on http.server and wsgiref of the standard library.
"""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import threading
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

if TYPE_CHECKING:
    import ssl
    from wsgiref.types import WSGIApplication

MAX_BODY_BYTES: Final = 1 << 20
IDLE_SECONDS: Final = 60.0
_MAX_LINE: Final = 1 << 16
_WITHOUT_BODY: Final = ("204", "304")


class ConnectionToResetError(ConnectionResetError):
    """Raised by the application to drop the connection without a response."""


class _Handler(WSGIRequestHandler):
    """Handles one connection, request by request, until either side closes it."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    # Send head and body in one packet, without waiting for the acknowledgement of the previous one.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: HttpServer

    def handle(self) -> None:
        self.close_connection = False
        try:
            while not self.close_connection:
                self._handle_one()
        except OSError:
            # The client is gone, waits too long or does not speak TLS; there is nobody to respond to.
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            self.close_connection = True

    def version_string(self) -> str:
        """Return the `Server` header, without any version."""
        return "mock-idp"

    def handle_expect_100(self) -> bool:
        """Send `100 Continue` to a client that waits for it; without the flush it would stay in the buffer."""
        proceeds = super().handle_expect_100()
        self.wfile.flush()
        return proceeds

    def _handle_one(self) -> None:
        self.raw_requestline = self.rfile.readline(_MAX_LINE + 1)
        if not self.raw_requestline:
            self.close_connection = True
        elif len(self.raw_requestline) > _MAX_LINE:
            self.send_error(414)
        elif self.parse_request():
            self._respond()
        self.wfile.flush()

    def _respond(self) -> None:
        # Read the whole body first: bytes that the application does not read would be taken for the next request.
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding"):
            self.send_error(411)
        elif not (length.isascii() and length.isdigit()):
            self.send_error(400)
        elif int(length) > MAX_BODY_BYTES:
            self.send_error(413)
        else:
            self._call_application(self.rfile.read(int(length)))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 (the signature of the standard library)
        """Refuse a malformed request without HTML and hang up, because the start of the next request is unknown."""
        # The parser has not set these if the request line is invalid.
        self.requestline, self.request_version, self.command = "", self.protocol_version, ""
        self.send_response(code)
        self.send_header("Connection", "close")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _call_application(self, body: bytes) -> None:
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> Any:
            started[:] = [status, headers]

        try:
            content = b"".join(self.server.wsgi(self._environ(body), start_response))
        except ConnectionToResetError:
            self._break()
            return
        status, headers = started
        self._send(status, headers, content)

    def _environ(self, body: bytes) -> dict[str, Any]:
        return self.get_environ() | {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if self.server.is_tls else "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": self.get_stderr(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }

    def _send(self, status: str, headers: list[tuple[str, str]], content: bytes) -> None:
        code, _, reason = status.partition(" ")
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        promised = next((value for name, value in headers if name.lower() == "content-length"), None)
        if promised is None and code not in _WITHOUT_BODY:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        if promised is not None and self.command != "HEAD" and int(promised) != len(content):
            # The client notices a wrong length only when the connection ends.
            self.close_connection = True

    def _break(self) -> None:
        self.close_connection = True
        # Lingering for zero seconds makes the kernel send RST instead of FIN.
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        socket.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name in the standard library)
        """Print nothing: the request log has all requests."""


class HttpServer(socketserver.ThreadingMixIn, WSGIServer):
    """Serves `application` on a listening socket, with one thread per connection, and with TLS if a context is given."""

    daemon_threads = True

    def __init__(
        self, listener: socket.socket, application: WSGIApplication, tls: ssl.SSLContext | None = None
    ) -> None:
        address = listener.getsockname()[:2]
        super().__init__(address, _Handler, bind_and_activate=False)
        self.socket.close()
        self.is_tls = tls is not None
        # The handshake runs in the connection's own thread, so that a silent client cannot hold up the others.
        self.socket = (
            tls.wrap_socket(listener, server_side=True, do_handshake_on_connect=False) if tls else listener
        )
        self.wsgi = application
        self.server_name, self.server_port = address
        self.setup_environ()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that `server_close` can end it."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening and close the connections that clients keep open."""
        super().server_close()
        with self._lock:
            kept = list(self._open)
        for connection in kept:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # The connection has closed in the meantime.
                self._open.discard(connection)
