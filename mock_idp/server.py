"""The mock as a running server: for tests in this process, and for `mock-idp serve`."""

from __future__ import annotations

import socket
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mock_idp.faults.plan import read_planned_fault
from mock_idp.http.sites import Sites
from mock_idp.http.wsgi_server import HttpServer
from mock_idp.issuer import Issuer
from mock_idp.job import make_job
from mock_idp.request_log import RequestLog
from mock_idp.signing_keys import keep_ring, kept_ring

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from mock_idp.job import Job
    from mock_idp.request_log import Entry
    from mock_idp.signing_keys import KeyRing

# How long `shutdown` may have to wait; tests start and stop many mocks.
_POLL_SECONDS = 0.02
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (recognised, not bound)


class MockIssuer(RequestLog):
    """One issuer of a running mock at `url`. Keys, clock, faults, jobs and log are its own."""

    def __init__(self, url: str, state: Issuer) -> None:
        self.url = url
        self.state = state

    @property
    def issuer(self) -> str:
        """The `iss` of its tokens."""
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
        """The token that GitHub would issue for a job with these options, such as `environment="production"`.

        `claims` and `header` override it raw, `None` removes one; `fault` is a name of the catalogue. Raises
        InvalidFieldError for an unknown option, event or fault.
        """
        made = make_job(job, options)
        return self.state.mint(made, audience=audience, claims=claims, header=header, fault=fault)

    def job(self, job: Job | Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Start a job with these options: `requestUrl`, `requestToken`, `variables`, `event`.

        Raises InvalidFieldError for an unknown option or event.
        """
        return self.state.start_job(make_job(job, options)).describe(self.url, self.issuer)

    def end_job(self, job_id: str) -> None:
        """End a job; its request token is expired from then on."""
        self.state.end_job(job_id)

    def plan_fault(self, endpoint: str, **how: Any) -> None:
        """Let an endpoint fail; see `mock_idp.faults.plan.PlannedFault`. Raises InvalidFieldError."""
        self.state.plan_fault(read_planned_fault({"endpoint": endpoint, **how}))

    def clear_faults(self) -> None:
        """Behave again."""
        self.state.clear_faults()

    def rotate(self, *, publish: bool = True, keep_old: bool = True) -> str:
        """Sign with a new key from now on; its kid."""
        return self.state.rotate(publish=publish, keep_old=keep_old).kid

    def publish(self) -> str:
        """Show the signing key in the key set, where a rotation has left it out; its kid."""
        return self.state.publish().kid

    def retire(self) -> list[str]:
        """Drop every key but the signing one from the key set; their kids."""
        return self.state.retire()

    def skew(self, seconds: float) -> None:
        """Let the mock's clock run ahead of the machine's, or behind it. Raises InvalidFieldError."""
        self.state.clock.shift(seconds)

    def travel(self, epoch: float) -> None:
        """Let the mock's clock go on from `epoch` (seconds)."""
        self.state.clock.travel(epoch)

    def freeze(self, epoch: float | None = None) -> None:
        """Stop the mock's clock at `epoch` (seconds), or now."""
        self.state.clock.freeze(time.time() if epoch is None else epoch)

    def requests(self) -> list[Entry]:
        """The logged requests, oldest first: the last 10,000."""
        return self.state.requests()

    def request_counts(self) -> dict[str, int]:
        """How often each endpoint was asked since the last `reset`."""
        return self.state.request_counts()

    def reset(self) -> None:
        """Real time, no faults, an empty log. Keys and jobs stay."""
        self.state.reset()

    def restore(self) -> None:
        """As after the start: `reset`, the first keys, and every job ended."""
        self.state.restore()


class MockIdp(MockIssuer):
    """A mock of GitHub's OIDC issuer on a port of its own.

    `with MockIdp() as idp:` serves until the block ends. `issuer` is the `iss` of its tokens: a URL, a path below the
    server's own URL such as `/_services/token`, or nothing for that URL itself. Port 0 takes a free port. `ring` saves
    many mocks the making of keys, which is the slow part (`mock_idp.signing_keys.make_ring`); `keys` is a file that
    keeps them. With `tls` it speaks HTTPS (`mock_idp.http.tls.make_certificate`). Raises OSError where it cannot bind
    or use the file, ValueError for a file of other content, InvalidFieldError for no `iss`.
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
        """One more issuer on this port: a path such as `/my-enterprise`, or a URL with a path.

        It answers below that path, its control API too; the same one again is the same issuer. Raises
        InvalidFieldError where the path is missing, or belongs to another issuer.
        """
        mount, state = self._sites.add(issuer)
        return MockIssuer(self.url + mount, state)

    def restore(self) -> None:
        """As after the start: `reset`, the first keys, and every job ended; of all issuers."""
        self._sites.restore()

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
        self._server.server_close()


def _make_issuer(keys: Path | None, url: str, mount: str, ring: KeyRing | None) -> Issuer:
    """An issuer with its keys; a file of keys serves one issuer, and those below a path have theirs beside it."""
    if keys is None:
        return Issuer(url, ring=ring, mount=mount)
    file = keys.with_name(keys.name + mount.replace("/", "."))
    return Issuer(url, ring=kept_ring(file), mount=mount, keep=partial(keep_ring, file))
