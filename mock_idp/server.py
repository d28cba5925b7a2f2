"""The mock as a running server: for tests in this process, and for `mock-idp serve`."""

from __future__ import annotations

import socket
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mock_idp.faults.plan import read_planned_fault
from mock_idp.http.sites import Sites
from mock_idp.http.wsgi_server import HttpServer
from mock_idp.issuer import Issuer
from mock_idp.job import make_job
from mock_idp.request_log import RequestLog
from mock_idp.signing_keys import load_or_make_ring, save_ring

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from mock_idp.job import Job
    from mock_idp.request_log import LoggedRequest
    from mock_idp.signing_keys import KeyRing

# The longest time that `shutdown` waits; short, because tests start and stop many mocks.
_POLL_SECONDS = 0.02
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (recognised, not bound)


class MockIssuer(RequestLog):
    """One issuer of a running mock, served at `url`, with its own keys, clock, faults, jobs and log."""

    def __init__(self, url: str, state: Issuer) -> None:
        self.url = url
        self.state = state

    @property
    def issuer(self) -> str:
        """The `iss` claim of this issuer's tokens."""
        return self.state.url

    def mint(
        self,
        *,
        job: Job | Mapping[str, Any] | None = None,
        audience: str | None = None,
        claims: Mapping[str, object] | None = None,
        header: Mapping[str, object] | None = None,
        fault: str = "",
        **options: Any,
    ) -> str:
        """Return the token that GitHub would issue for a job with these options, such as `environment="production"`.

        `claims` and `header` override single fields without any checks, and None removes a field. `fault` names an
        entry of the fault catalogue. Raises InvalidFieldError for an unknown option, event or fault.
        """
        made = make_job(job, options)
        return self.state.mint(made, audience=audience, claims=claims, header=header, fault=fault)

    def job(self, job: Job | Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Start a job with these options; return its `jobId`, `requestUrl`, `requestToken`, `variables` and `event`.

        Raises InvalidFieldError for an unknown option or event.
        """
        return self.state.start_job(make_job(job, options)).describe(self.url, self.issuer)

    def end_job(self, job_id: str) -> None:
        """End a job, which expires its request token."""
        self.state.end_job(job_id)

    def plan_fault(self, endpoint: str, **how: Any) -> None:
        """Plan a fault for an endpoint; see `mock_idp.faults.plan.PlannedFault`. Raises InvalidFieldError."""
        self.state.plan_fault(read_planned_fault({"endpoint": endpoint, **how}))

    def clear_faults(self) -> None:
        """Remove all planned faults."""
        self.state.clear_faults()

    def rotate(self, *, publish: bool = True, keep_old: bool = True) -> str:
        """Sign with a new key from now on, and return its kid."""
        return self.state.rotate(publish=publish, keep_old=keep_old).kid

    def publish(self) -> str:
        """Add the signing key to the key set if a rotation left it out, and return its kid."""
        return self.state.publish().kid

    def retire(self) -> list[str]:
        """Remove all keys except the signing key from the key set, and return the removed kids."""
        return self.state.retire()

    def skew(self, seconds: float) -> None:
        """Set the mock's clock ahead of the machine's, or behind it if negative. Raises InvalidFieldError."""
        self.state.clock.shift(seconds)

    def travel(self, epoch: float) -> None:
        """Set the mock's clock to `epoch` (seconds), from where it runs on."""
        self.state.clock.travel(epoch)

    def freeze(self, epoch: float | None = None) -> None:
        """Stop the mock's clock at `epoch` (seconds), or where it is now."""
        self.state.clock.freeze(self.state.clock.now() if epoch is None else epoch)

    def requests(self) -> list[LoggedRequest]:
        """Return the logged requests, oldest first; the log keeps the last 10,000."""
        return self.state.requests()

    def request_counts(self) -> dict[str, int]:
        """Return the number of requests to each endpoint since the last `reset`."""
        return self.state.request_counts()

    def reset(self) -> None:
        """Return to real time, remove all faults and empty the log. Keys and jobs stay."""
        self.state.reset()

    def restore(self) -> None:
        """Restore the state after the start: `reset`, the first keys, and every job ended."""
        self.state.restore()


class MockIdp(MockIssuer):
    """A mock of GitHub's OIDC issuer on a port of its own.

    `with MockIdp() as idp:` serves until the block ends. `issuer` is the `iss` of its tokens: a URL, a path below the
    server's own URL such as `/_services/token`, or empty for that URL itself. Port 0 picks a free port. `ring` is a key
    ring to reuse, because creating keys is slow (`mock_idp.signing_keys.make_ring`); `keys` is a file that stores the
    keys. With `tls` the server speaks HTTPS (`mock_idp.http.tls.make_certificate`). Raises OSError if it cannot bind or
    use the file, ValueError if the file does not contain keys, InvalidFieldError for an invalid `issuer`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        issuer: str = "",
        ring: KeyRing | None = None,
        tls: ssl.SSLContext | None = None,
        keys: Path | str | None = None,
    ) -> None:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
        name, scheme = _UNSPECIFIED.get(host, host), "https" if tls else "http"
        name = f"[{name}]" if ":" in name else name
        url = f"{scheme}://{name}:{listener.getsockname()[1]}"
        try:
            self._sites = Sites(url, partial(_make_issuer, Path(keys) if keys else None), issuer, ring)
        except Exception:
            listener.close()
            raise
        super().__init__(url, self._sites.first)
        self._server = HttpServer(listener, self._sites, tls)

    def add_issuer(self, issuer: str) -> MockIssuer:
        """Add an issuer to this port: a path such as `/my-enterprise`, or a URL with a path.

        The issuer and its control API are served below that path; adding the same issuer again returns it. Raises
        InvalidFieldError if the path is missing or belongs to another issuer.
        """
        mount, state = self._sites.add(issuer)
        return MockIssuer(self.url + mount, state)

    def restore(self) -> None:
        """Restore all issuers to the state after the start: `reset`, the first keys, and every job ended."""
        self._sites.restore()

    def serve_forever(self) -> None:
        """Serve in this thread until the server shuts down or the process ends."""
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
        self._server.server_close()


def _make_issuer(keys: Path | None, url: str, mount: str, ring: KeyRing | None) -> Issuer:
    """Create an issuer; with a key file, each issuer below a path has a file of its own next to it."""
    if keys is None:
        return Issuer(url, ring=ring, mount=mount)
    file = keys.with_name(keys.name + mount.replace("/", "."))
    return Issuer(url, ring=load_or_make_ring(file), mount=mount, save_ring=partial(save_ring, file))
