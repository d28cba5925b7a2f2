"""The mock as a running server: for tests in this process, and for `mock-idp serve`."""

from __future__ import annotations

import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from werkzeug.serving import WSGIRequestHandler, make_server

from mock_idp.app import ConnectionToResetError, create_app
from mock_idp.issuer import Issuer, PlannedFault
from mock_idp.job import Job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from mock_idp.signing_keys import KeyRing

# How long `shutdown` may have to wait; tests start and stop many mocks.
_POLL_SECONDS = 0.02
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (recognised, not bound)


class _Handler(WSGIRequestHandler):
    """No log lines, and connections that really break."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 (werkzeug's name)
        if type == "error":
            super().log(type, message, *args)

    def connection_dropped(self, error: BaseException, environ: Mapping[str, Any] | None = None) -> None:
        super().connection_dropped(error, dict(environ) if environ else None)
        self.close_connection = True
        if isinstance(error, ConnectionToResetError):
            # Lingering for zero seconds makes the kernel send RST instead of FIN.
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            socket.close(self.connection.detach())


class MockIdp:
    """A mock of GitHub's OIDC issuer on a port of its own.

    `with MockIdp() as idp:` serves until the block ends. `issuer` is the `iss` of its tokens: a URL, a path below the
    server's own URL such as `/_services/token`, or nothing for that URL itself. Port 0 takes a free port. `ring` saves
    many mocks the making of keys, which is the slow part (`mock_idp.signing_keys.make_ring`).
    Raises OSError where it cannot bind.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, issuer: str = "", ring: KeyRing | None = None
    ) -> None:
        self._socket = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
        port = self._socket.getsockname()[1]
        name = _UNSPECIFIED.get(host, host)
        self.url = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
        name = self.url + issuer if issuer.startswith("/") else issuer or self.url
        self.state = Issuer(name, ring=ring)
        self._server = make_server(
            host,
            port,
            create_app(self.state),
            threaded=True,
            request_handler=_Handler,
            fd=self._socket.fileno(),
        )

    @property
    def issuer(self) -> str:
        """The `iss` of this mock's tokens."""
        return self.state.url

    def serve_forever(self) -> None:
        """Serve in this thread until the process is told to end."""
        self._server.serve_forever(poll_interval=_POLL_SECONDS)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, name="mock-idp", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._socket.close()

    def mint(
        self,
        *,
        job: Job | None = None,
        audience: str | None = None,
        header: Mapping[str, object] | None = None,
        fault: str = "",
        **claims: object,
    ) -> str:
        """A token for `job`; keyword claims override its own, `None` removes one; `fault` is a name of the catalogue."""
        return self.state.mint(job or Job(), audience=audience, claims=claims, header=header, fault=fault)

    def plan_fault(self, endpoint: str, **how: Any) -> None:
        """Let an endpoint fail; see `mock_idp.issuer.PlannedFault`."""
        self.state.plan_fault(PlannedFault(endpoint, **how))

    def job(self, **options: Any) -> dict[str, Any]:
        """Start a job with the fields of `mock_idp.job.Job`: `requestUrl`, `requestToken`, `variables`, `event`."""
        return self.state.start_job(Job(**options)).describe(self.url, self.issuer)
