"""What Prometheus reads of a replica: numbers that all of its workers share, under labels that nobody can multiply."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format, which every version of it reads."""

UNMATCHED: Final = "unmatched"
"""The path of requests that no route takes: what a client writes into an address is no label."""

_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a fresh folder with a random name and mode 0700 is made in it


@contextmanager
def shared_between_workers() -> Iterator[None]:
    """Let processes that are started inside add to the same numbers; those of a worker that died stay counted.

    The numbers lie in files, in memory where the machine allows: a full disk must not end a worker that counts.
    """
    in_memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="sentryagent-metrics-", dir=in_memory) as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


class Metrics:
    """The numbers of one process, and the page on which those of all workers stand."""

    def __init__(self) -> None:
        # Loaded here and not by the process that starts the workers: when it is loaded, the library decides
        # whether the numbers are shared.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._routes: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "agentidp_http_requests",
            "Requests, by the route that took them.",
            ("method", "path", "status_code"),
            registry=registry,
        )
        self._duration = Histogram(
            "agentidp_http_request_duration_seconds",
            "Time from a request's arrival in a worker's thread to its answer.",
            ("method", "path"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._refusals = Counter(
            "agentidp_refusals",
            "Requests that were refused, by error code; reason is that of INVALID_OIDC_TOKEN.",
            ("code", "reason"),
            registry=registry,
        )
        self._limited = Counter(
            "agentidp_rate_limit_rejections", "Requests that were one too many.", registry=registry
        )
        self._tokens = Counter(
            "agentidp_tokens_issued",
            "Access tokens asked for by exchange and by client credentials; a dry_run issues none.",
            ("outcome",),
            registry=registry,
        )
        self._agents = Counter(
            "agentidp_agents_registered",
            "Agents that were to be registered.",
            ("outcome",),
            registry=registry,
        )
        self._issuer_keys_age = Gauge(
            "agentidp_issuer_keys_age_seconds",
            "Age of the oldest set of GitHub's keys that a worker holds; +Inf where one holds none.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._unsealed = Gauge(
            "agentidp_audit_unsealed_records",
            "Audit records that wait for their seal.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._chain_valid = Gauge(
            "agentidp_audit_chain_valid",
            "1 while the audit's hash chain is in order as far as it was checked, else 0.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._build = Gauge(
            "agentidp_build_info",
            "1, with the version of the provider.",
            ("version",),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def begin(self, version: str, refusals: Iterable[tuple[str, str]]) -> None:
        """Show the version, every outcome and refusal (code and reason) at 0, and a chain in which nothing was found.

        Prometheus' rate() does not see the rise from no series to the first count, so an alert would miss it.
        """
        self._build.labels(version).set(1)
        self._chain_valid.set(1)
        for outcome in ("success", "failure"):
            self._tokens.labels(outcome)
            self._agents.labels(outcome)
        self._tokens.labels("dry_run")
        for code, reason in refusals:
            self._refusals.labels(code, reason)

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one request; `path` is a route's template or `UNMATCHED`, and `method` one of HTTP's own."""
        count, duration = self._of_route(method, path, status)
        count.inc()
        duration.observe(seconds)

    def _of_route(self, method: str, path: str, status: int) -> "tuple[Counter, Histogram]":
        """The numbers of a route, looked up once: the library's own look-up costs more than the counting."""
        key = (method, path, status)
        if key not in self._routes:
            self._routes[key] = (
                self._requests.labels(method, path, str(status)),
                self._duration.labels(method, path),
            )
        return self._routes[key]

    def refused(self, code: str, reason: str = "") -> None:
        """Count one refusal; both are words of the provider's own."""
        self._refusals.labels(code, reason).inc()

    def limited(self) -> None:
        """Count one request that the rate limit refused."""
        self._limited.inc()

    def token_requested(self, outcome: str) -> None:
        """Count a token that was issued, refused or only tried: `success`, `failure`, `dry_run`."""
        self._tokens.labels(outcome).inc()

    def agent_registered(self, outcome: str) -> None:
        """Count an agent that was registered or refused: `success`, `failure`."""
        self._agents.labels(outcome).inc()

    def issuer_keys(self, age_seconds: float | None) -> None:
        """Record how old GitHub's keys are in this process; `None` where it holds none."""
        self._issuer_keys_age.set(float("inf") if age_seconds is None else age_seconds)

    def audit_chain(self, *, unsealed: int, is_valid: bool) -> None:
        """Record how many records wait for their seal, and whether the chain is in order."""
        self._unsealed.set(unsealed)
        self._chain_valid.set(int(is_valid))

    def page(self) -> bytes:
        """The numbers of all workers, in Prometheus' text format."""
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
    """Remove the gauges of workers that are gone: their state ended with them. Counters stay."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            with suppress(FileNotFoundError):  # another worker answers the same question at this moment
                file.unlink()
