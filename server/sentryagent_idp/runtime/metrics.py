"""A replica's Prometheus metrics, which all of its processes share; no client can add label values."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

GaugeMode = Literal["livemin", "livemax"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The text format that every version of Prometheus reads."""

UNMATCHED: Final = "unmatched"
"""The path of requests that match no route: client input must not become a label."""

_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a new folder with a random name and mode 0700 is created in it


@contextmanager
def shared_between_processes() -> Iterator[None]:
    """Let processes that are started in the block share their metrics; counts of a process that died are kept.

    The metrics are stored in files, in memory if the machine allows it: a full disk must not end a worker that counts.
    """
    in_memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="sentryagent-metrics-", dir=in_memory) as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


class BackgroundMetrics:
    """The metrics of a process that serves no requests: it does not set the gauges of the workers."""

    def __init__(self) -> None:
        # Imported here and not in the process that starts the others: on import, the library decides whether
        # the metrics are shared.
        from prometheus_client import CollectorRegistry, Histogram

        self._registry = registry = CollectorRegistry()
        db = Histogram(
            "agentidp_db_query_duration_seconds",
            "Time of a database transaction, including the wait for a connection or for the write lock.",
            ("operation",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._transactions = {operation: db.labels(operation) for operation in ("read", "write")}
        self._chain_valid = self._gauge(
            "agentidp_audit_chain_valid",
            "1 while no check has found the audit's hash chain broken, else 0.",
            "livemin",
        )
        self._chain_valid.set(1)

    def _gauge(self, name: str, meaning: str, of_processes: GaugeMode, *labels: str) -> "Gauge":
        """Create a gauge; the page shows the lowest or the highest value of the live processes that have it."""
        from prometheus_client import Gauge  # as above

        return Gauge(name, meaning, labels, registry=self._registry, multiprocess_mode=of_processes)

    def transaction(self, operation: str, seconds: float) -> None:
        """Record the duration of a database transaction, a `read` or a `write`, including failed ones."""
        self._transactions[operation].observe(seconds)

    def audit_chain(self, *, is_valid: bool) -> None:
        """Record whether the audit's hash chain is valid."""
        self._chain_valid.set(int(is_valid))


class Metrics(BackgroundMetrics):
    """The metrics of one worker, and the page with the metrics of all processes."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Histogram  # as above

        super().__init__()
        registry = self._registry
        self._routes: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "agentidp_http_requests",
            "Requests by method, route and status.",
            ("method", "path", "status_code"),
            registry=registry,
        )
        self._duration = Histogram(
            "agentidp_http_request_duration_seconds",
            "Time from a request's dispatch to its response.",
            ("method", "path"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._refusals = Counter(
            "agentidp_refusals",
            "Refused requests by error code; only INVALID_OIDC_TOKEN has a reason.",
            ("code", "reason"),
            registry=registry,
        )
        self._limited = Counter(
            "agentidp_rate_limit_rejections", "Requests refused by a rate limit.", registry=registry
        )
        self._tokens = Counter(
            "agentidp_tokens_issued",
            "Access tokens requested by exchange or client credentials; a dry_run issues none.",
            ("outcome",),
            registry=registry,
        )
        self._agents = Counter(
            "agentidp_agents_registered",
            "Agent registrations attempted.",
            ("outcome",),
            registry=registry,
        )
        self._ready = self._gauge("agentidp_ready", "1 if /ready is 200 in every worker, else 0.", "livemin")
        self._signing_key_age = self._gauge(
            "agentidp_signing_key_age_seconds", "Time since the active signing key was created.", "livemax"
        )
        self._other_issuers = self._gauge(
            "agentidp_policies_of_other_issuers",
            "Policies of issuers that are not configured, which match nothing.",
            "livemax",
        )
        self._issuer_keys_age = self._gauge(
            "agentidp_issuer_keys_age_seconds",
            "Age of GitHub's keys in the worker with the oldest ones; +Inf if a worker has none.",
            "livemax",
        )
        self._unsealed = self._gauge(
            "agentidp_audit_unsealed_records", "Audit records that are not sealed yet.", "livemax"
        )
        self._build = self._gauge(
            "agentidp_build_info", "Always 1, with the provider's version as a label.", "livemax", "version"
        )

    def begin(
        self, version: str, refusals: Iterable[tuple[str, str]], timed: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Show the version, and every outcome and refusal (code and reason) at 0.

        The durations of the `timed` routes (method and path) start at 0 as well. Prometheus' rate() does not see the
        step from a missing series to its first count, so an alert would miss it.
        """
        self._build.labels(version).set(1)
        for outcome in ("success", "failure"):
            self._tokens.labels(outcome)
            self._agents.labels(outcome)
        self._tokens.labels("dry_run")
        for code, reason in refusals:
            self._refusals.labels(code, reason)
        for method, path in timed:
            self._duration.labels(method, path)

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one request; `path` is a route's template or `UNMATCHED`, `method` one that HTTP defines or `other`."""
        count, duration = self._of_route(method, path, status)
        count.inc()
        duration.observe(seconds)

    def _of_route(self, method: str, path: str, status: int) -> "tuple[Counter, Histogram]":
        """The metrics of a route, looked up once: the library's own lookup costs more than the counting."""
        key = (method, path, status)
        if key not in self._routes:
            self._routes[key] = (
                self._requests.labels(method, path, str(status)),
                self._duration.labels(method, path),
            )
        return self._routes[key]

    def refused(self, code: str, reason: str = "") -> None:
        """Count one refusal; code and reason are the provider's own words, never client input."""
        self._refusals.labels(code, reason).inc()

    def limited(self) -> None:
        """Count one request that the rate limit refused."""
        self._limited.inc()

    def token_requested(self, outcome: str) -> None:
        """Count a token request by its outcome: `success`, `failure` or `dry_run`."""
        self._tokens.labels(outcome).inc()

    def agent_registered(self, outcome: str) -> None:
        """Count an agent registration by its outcome: `success` or `failure`."""
        self._agents.labels(outcome).inc()

    def issuer_keys(self, age_seconds: float | None) -> None:
        """Record the age of this process's copy of GitHub's keys; `None` if it has none."""
        self._issuer_keys_age.set(float("inf") if age_seconds is None else age_seconds)

    def readiness(self, *, is_ready: bool, policies_of_other_issuers: int) -> None:
        """Record whether this process can serve, and how many policies have an issuer that is not configured."""
        self._ready.set(int(is_ready))
        self._other_issuers.set(policies_of_other_issuers)

    def unsealed(self, records: int) -> None:
        """Record how many audit records are not sealed yet."""
        self._unsealed.set(records)

    def signing_key(self, age_seconds: float) -> None:
        """Record how long ago the active signing key was created."""
        self._signing_key_age.set(age_seconds)

    def page(self) -> bytes:
        """Render the metrics of all processes in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        folder = os.environ.get(_FOLDER)
        if folder is None:
            return generate_latest(self._registry)
        _forget_the_dead(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # the library leaves it untyped
        return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """Remove the gauges of processes that have ended: their state is gone. Counters stay."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            with suppress(FileNotFoundError):  # another worker renders the page at the same time
                file.unlink()
