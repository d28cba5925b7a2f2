"""`serve`: prepares the database, then runs worker processes under granian and one process for background tasks."""

import errno
import os
import resource
import socket
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import Server

from sentryagent_idp.api.use_cases import EXTENSION
from sentryagent_idp.app import Dependencies, create_app, service_conflict, utc_now
from sentryagent_idp.concurrency.loop import RsgiApplication
from sentryagent_idp.concurrency.request_greenlet import off_loop
from sentryagent_idp.config import Settings, unknown_variables
from sentryagent_idp.errors import ConfigurationError
from sentryagent_idp.github.issuer_keys import GithubIssuerKeys
from sentryagent_idp.github.network import Network
from sentryagent_idp.runtime import background_process, granian_workarounds, logs, metrics, periodic
from sentryagent_idp.runtime.ids import uuid7
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.store.url import parse, sqlite_file
from sentryagent_idp.use_cases import published_settings, sealing
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.housekeeping import Housekeeping
from sentryagent_idp.use_cases.issuers import other_issuers
from sentryagent_idp.use_cases.key_ring import ensure_signing_key
from sentryagent_idp.use_cases.readiness import ReadinessCheck
from sentryagent_idp.use_cases.refusals import CountedRefusals
from sentryagent_idp.use_cases.signing_keys import RetiredKeys, active_key_age

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = structlog.get_logger()

_THREADS = 16
"""The threads of a worker for requests that are not answered on the loop."""
_ON_LOOP = (("POST", "/api/v1/oidc/token"), ("GET", "/health"))
_LARGE = (("POST", "/api/v1/oidc/trust-policies/simulate"),)
_CONNECTIONS = 4096
"""Connections that one worker holds at a time; further ones wait in the kernel's queue."""
_OTHER_FILES = 256
"""The most files that a worker has open in addition to its connections."""
_SILENCE_SECONDS = 5
"""How long a connection may lack a complete request head, also between two requests, before it is closed."""
_DRAIN_SECONDS = 30
_GAUGE_SECONDS = 5
"""The time between two reports of the age of GitHub's keys in a worker; counters are on /metrics at once."""
_STATE_SECONDS = 10
"""The time between two readiness checks, which query the database."""
_SUPERVISOR_SECONDS = 1
"""The time between two checks that the supervisor still runs."""


class UnusableAddress(Exception):
    """The address is not one of this machine, or another process listens on it."""


def serve(settings: Settings) -> None:
    """Migrate, create a signing key if none exists, and serve until SIGTERM; in-flight requests are finished.

    Raises `ConfigurationError`, `UnusableAddress`, `DatabaseUnavailable`, `SchemaError`, `DatabaseUrlError`.
    """
    logs.configure(settings.log_level)
    Network.from_environ(os.environ)
    if settings.traces:
        check_traces(os.environ)
    address = _address(settings.host, settings.port)
    prepare(settings)
    _warn_of_unknown_variables(os.environ)
    workers = settings.workers or os.cpu_count() or 1
    log.info(
        "listening",
        url=_url(address, settings.port),
        issuer=settings.public_url,
        workers=workers,
    )
    new_server = partial(
        Server,
        "sentryagent",
        address=address,
        port=settings.port,
        interface=Interfaces.RSGI,
        # With HTTP/2, which granian accepts by default, a cancelled request uses up a CPU for ever.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_SILENCE_SECONDS * 1000),
        workers=workers,
        backpressure=_connections(),
        respawn_failed_workers=True,
        workers_kill_timeout=_DRAIN_SECONDS,
        websockets=False,
        log_enabled=False,
    )
    granian_workarounds.share_what_is_loaded()
    with (
        metrics.shared_between_processes(),
        background_process.running(partial(start_background_tasks, settings)),
    ):
        granian_workarounds.keep_serving(new_server, partial(load, settings))


def check_traces(environ: Mapping[str, str]) -> None:
    """Load the tracing libraries, which workers then share, and check their variables; raises `ConfigurationError`."""
    try:
        from sentryagent_idp import traces
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"SENTRYAGENT_TRACES: {error.name} is not installed; install sentryagent-idp[otel], or set it to off"
        ) from error
    except ValueError as error:  # the library reads OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT on import
        raise ConfigurationError(f"OpenTelemetry: {error}") from error
    traces.check(environ)


def _connections() -> int:
    """Raise the limit of open files as far as the system allows, and return how many connections a worker may hold.

    A worker that runs out of files could not accept connections, and would try again without a pause.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _CONNECTIONS + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(files - _OTHER_FILES, _OTHER_FILES)


def prepare(settings: Settings) -> None:
    """Migrate the schema, make sure that a signing key exists, and store the settings that the command line shares.

    Raises `ConfigurationError` if a setting has taken the name of a service.
    """
    schema.migrate(settings.database_url)
    _warn_of_other_readers(settings.database_url)
    with Database(settings.database_url) as store:
        conflict = service_conflict(settings, store)
        if conflict:
            raise ConfigurationError(conflict)
        ensure_signing_key(store, settings.signing_alg, settings.passphrases, utc_now)
        _warn_of_other_issuers(store, settings.github_issuers)
        published_settings.save(store, public_url=settings.public_url, token_audience=settings.token_audience)
    if not settings.passphrases:
        log.warning(
            "private keys are stored unencrypted, also in backups of the database; "
            "set SENTRYAGENT_KEY_ENCRYPTION_KEY to encrypt them"
        )


def _warn_of_unknown_variables(environ: Mapping[str, str]) -> None:
    for name in unknown_variables(environ):
        log.warning("unknown variable; correct its name, or unset it", variable=name)


def _warn_of_other_issuers(store: Database, issuers: Sequence[str]) -> None:
    others = other_issuers(store, issuers)
    if others:
        log.warning(
            "policies belong to issuers that are not configured, and match nothing; add the issuers to "
            "SENTRYAGENT_GITHUB_ISSUER, or run `sentryagent-idp policies move-issuer`",
            policies=sum(others.values()),
            issuers=others,
        )


def _warn_of_other_readers(database_url: str) -> None:
    path = sqlite_file(parse(database_url))
    if path is not None and path.stat().st_mode & 0o077:
        log.warning(
            "other users of this machine can access the database; run `chmod 600` on it", file=str(path)
        )


def load(settings: Settings) -> RsgiApplication:
    """Build the application of one worker process, with its own connections and its own cache of GitHub's keys."""
    logs.configure(settings.log_level)
    numbers = metrics.Metrics()
    store = Database(settings.database_url, numbers.transaction)
    network = Network.from_environ(os.environ)
    issuer_keys = {
        issuer: GithubIssuerKeys(issuer, network.client(issuer), off_loop=off_loop)
        for issuer in settings.github_issuers
    }
    for keys in issuer_keys.values():
        keys.warm_up()
    dependencies = Dependencies(
        store,
        issuer_keys,
        lambda: not store.is_prepared(),
        utc_now,
        metrics=numbers,
        tracer=_tracer(settings),
    )
    refusals = CountedRefusals(store, Auditor(utc_now, uuid7), dependencies.refusal_counter, uuid7)
    wait = threading.Event().wait
    periodic.start([refusals.run], wait)
    periodic.at_the_end(refusals.run)
    periodic.start([partial(_report_issuer_keys, dependencies)], wait, every=_GAUGE_SECONDS)
    app = create_app(settings, dependencies)
    check = app.extensions[EXTENSION].readiness
    periodic.start([partial(_report_state, dependencies, check)], wait, every=_STATE_SECONDS, at_once=True)
    periodic.start([granian_workarounds.end_without_supervisor], wait, every=_SUPERVISOR_SECONDS)
    return RsgiApplication(app, _THREADS, _ON_LOOP, _LARGE)


def start_background_tasks(settings: Settings) -> None:
    """Start the threads of the background process, with connections of its own; see `background_process`."""
    logs.configure(settings.log_level)
    numbers = metrics.BackgroundMetrics()
    store = Database(settings.database_url, numbers.transaction)
    keeper = Housekeeping(store, utc_now, settings.audit_retention)
    retired = RetiredKeys(store, Auditor(utc_now, uuid7), utc_now, uuid7, settings.token_ttl)
    sealer = sealing.Sealer(store, utc_now)
    watch = sealing.ChainWatch(sealing.AuditChain(store), partial(_report_audit, numbers))
    wait = threading.Event().wait
    periodic.start([keeper.run], wait)
    periodic.start([retired.run], wait)
    periodic.start(
        [sealer.run], wait, every=sealing.INTERVAL_SECONDS, after_work=sealing.BUSY_INTERVAL_SECONDS
    )
    # At once: until its first check, a restarted process reports that the chain is valid.
    periodic.start([watch.run], wait, every=sealing.WATCH_SECONDS, at_once=True)


def _tracer(settings: Settings) -> "Tracer | None":
    if not settings.traces:
        return None
    from sentryagent_idp.traces import Traces  # an extra

    traces = Traces()
    periodic.at_the_end(traces.end)
    return traces.tracer


def _report_audit(numbers: metrics.BackgroundMetrics, proof: sealing.AuditProof) -> None:
    """Report the state of the audit's chain in the metrics; while it is broken, each check also logs an error."""
    numbers.audit_chain(is_valid=proof["valid"])
    if not proof["valid"]:
        log.error("the audit's chain is broken", reason=proof["reason"], eventId=proof["firstBroken"])


def _report_state(dependencies: Dependencies, check: ReadinessCheck) -> None:
    """Report readiness, the age of the active signing key, and the number of unsealed audit records, for alerts.

    A background process that hangs could not report unsealed records itself. Raises `DatabaseUnavailable`.
    """
    found = check.run()
    dependencies.metrics.readiness(
        is_ready=found["status"] == "ready",
        policies_of_other_issuers=sum(found["policiesOfOtherIssuers"].values()),
    )
    age = active_key_age(dependencies.store, dependencies.clock())
    if age is not None:
        dependencies.metrics.signing_key(age)
    with dependencies.store.read() as tx:
        dependencies.metrics.unsealed(tx.seals.tail().unsealed)


def _report_issuer_keys(dependencies: Dependencies) -> None:
    ages = [keys.status()["ageSeconds"] for keys in dependencies.issuer_keys.values()]
    dependencies.metrics.issuer_keys(None if None in ages else max(ages))


def _url(address: str, port: int) -> str:
    """The URL of an address; an IPv6 address is in brackets (RFC 3986, 3.2.2)."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _address(host: str, port: int) -> str:
    """Resolve the IP address to listen on; a name resolves to IPv4 if possible, as in the default public URL.

    A port in use is detected here and not by the workers, which share it on purpose, even with an unrelated process
    of our user. Raises `UnusableAddress`.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda it: it[0] != socket.AF_INET)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        wrong = "port" if getattr(error, "errno", None) in {errno.EADDRINUSE, errno.EACCES} else "host"
        raise UnusableAddress(
            f"SENTRYAGENT_{wrong.upper()}: cannot listen on {host}:{port} ({cause}); choose another {wrong}"
        ) from error
    return str(address[0])
