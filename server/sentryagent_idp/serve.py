"""`serve`: the database made ready, then worker processes under granian."""

import errno
import gc
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import Server
from granian.server.common import AbstractServer

from sentryagent_idp.app import World, create_app, utc_now
from sentryagent_idp.concurrency.loop import RsgiApplication
from sentryagent_idp.concurrency.request_greenlet import off_loop
from sentryagent_idp.config import Settings
from sentryagent_idp.github.issuer_keys import GithubIssuerKeys
from sentryagent_idp.runtime import logs, metrics, periodic
from sentryagent_idp.runtime.ids import uuid7
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.store.url import parse, sqlite_file
from sentryagent_idp.use_cases import published_settings, sealing
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.housekeeping import Housekeeping
from sentryagent_idp.use_cases.key_ring import ensure_signing_key
from sentryagent_idp.use_cases.rejections import RejectionAudit
from sentryagent_idp.use_cases.signing_keys import RetiredKeys

log = structlog.get_logger()

_THREADS = 16
"""For the requests that are not answered on the loop, and for what makes one that is wait."""
_ON_LOOP = (("POST", "/api/v1/oidc/token"), ("GET", "/health"))
_CONNECTIONS = 4096
"""Connections that one worker holds at a time; further ones wait in the kernel's queue."""
_OTHER_FILES = 256
"""Files that a worker has open besides its connections, at the most."""
_SILENCE_SECONDS = 5
"""Until a connection without a whole head of a request is closed, also between two requests."""
_DRAIN_SECONDS = 30
_GAUGE_SECONDS = 5
"""Between two looks at a worker's state; what is counted is on /metrics at once."""
_PAUSE_SECONDS = 1
_SETTLED_SECONDS = 60
_STARTS = 5
"""Starts in a row that may end before they have settled: workers that cannot start at all must not hide it for ever."""


class UnusableAddress(Exception):
    """The address is none of this machine, or another process listens on it."""


def serve(settings: Settings) -> None:
    """Migrate, make a signing key where there is none, and serve until SIGTERM; in-flight requests are finished.

    Raises `UnusableAddress`, `DatabaseUnavailable`, `SchemaError`, `DatabaseUrlError`.
    """
    logs.configure(settings.log_level)
    address = _address(settings.host, settings.port)
    prepare(settings)
    workers = settings.workers or os.cpu_count() or 1
    log.info(
        "listening",
        url=f"http://{settings.host}:{settings.port}",
        issuer=settings.public_url,
        workers=workers,
    )
    new_server = partial(
        Server,
        "sentryagent",
        address=address,
        port=settings.port,
        interface=Interfaces.RSGI,
        # With HTTP/2, which the default takes too, a cancelled request costs a processor for ever.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_SILENCE_SECONDS * 1000),
        workers=workers,
        backpressure=_connections(),
        respawn_failed_workers=True,
        workers_kill_timeout=_DRAIN_SECONDS,
        websockets=False,
        log_enabled=False,
    )
    _share_what_is_loaded()
    _compute_without_interruption()
    with metrics.shared_between_workers():
        _keep_serving(new_server, partial(load, settings))


def _connections() -> int:
    """How many connections a worker may hold, after the limit of open files was raised as far as the system allows.

    A worker that runs out of files could accept nobody and would try again without a pause.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _CONNECTIONS + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(files - _OTHER_FILES, _OTHER_FILES)


def _share_what_is_loaded() -> None:
    """Let workers be copies of this process, and its objects stay shared with them.

    Python 3.14 by default starts a process that loads everything anew. And a full garbage collection writes to every
    object: a worker would have 20 MB of copies after a while.
    """
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)
    gc.collect()
    gc.freeze()


def _compute_without_interruption() -> None:
    """Let no thread that wakes take the processor from one that computes; for this process and its workers.

    A worker's threads wait for each other most of the time: what the one that woke wanted of the interpreter, it had to
    wait for, and the kernel changed threads three times more often for each exchange. Where a sandbox or a system
    does not know of it, exchanges cost a tenth more.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _keep_serving(new_server: Callable[[], AbstractServer[Any]], app: Callable[[], RsgiApplication]) -> None:
    """Serve until SIGTERM or SIGINT, also where granian ends by itself: when one worker dies twice within 5.5 s.

    Raises `SystemExit` with code 1 where `_STARTS` starts in a row ended before they had settled.
    """
    early = 0
    while True:
        began = time.monotonic()
        if _was_told_to_end(new_server(), app):
            return
        early = early + 1 if time.monotonic() - began < _SETTLED_SECONDS else 0
        if early == _STARTS:
            log.error(
                "workers keep dying, giving up; the kernel's log says whether memory ran out", starts=early
            )
            sys.exit(1)
        log.error("a worker died twice within seconds; starting all of them again")
        time.sleep(_PAUSE_SECONDS)


def _was_told_to_end(server: AbstractServer[Any], app: Callable[[], RsgiApplication]) -> bool:
    """Serve once, and say whether a signal ended it and not the death of its workers."""
    try:
        server.serve(target_loader=app, wrap_loader=False)  # type: ignore[arg-type]  # a callable of an object, as RSGI has it
    except SystemExit as end:
        # Until the next start nothing is in flight, and the server that ended would keep a signal to itself.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        return server.interrupt_signal or not end.code
    return True


def prepare(settings: Settings) -> None:
    """Bring the schema up to date, and see to a signing key and the facts that the command line shares."""
    schema.migrate(settings.database_url)
    _warn_of_other_readers(settings.database_url)
    with Database(settings.database_url) as store:
        ensure_signing_key(store, settings.signing_alg, settings.passphrases, utc_now)
        published_settings.save(store, public_url=settings.public_url, token_audience=settings.token_audience)
    if not settings.passphrases:
        log.warning(
            "private keys are stored in clear, also in backups of the database; "
            "set SENTRYAGENT_KEY_ENCRYPTION_KEY to encrypt them"
        )


def _warn_of_other_readers(database_url: str) -> None:
    path = sqlite_file(parse(database_url))
    if path is not None and path.stat().st_mode & 0o077:
        log.warning(
            "other users of this machine may read the database; run `chmod 600` on it", file=str(path)
        )


def load(settings: Settings) -> RsgiApplication:
    """The application of one worker process, with its own connections and its own cache of GitHub's keys."""
    # Inherited is granian's handler of the parent, which would let a worker that still loads live on.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logs.configure(settings.log_level)
    store = Database(settings.database_url)
    issuer_keys = GithubIssuerKeys(settings.github_issuer, httpx.Client(), off_loop=off_loop)
    issuer_keys.warm_up()
    world = World(store, issuer_keys, lambda: not store.is_prepared(), utc_now)
    keeper = Housekeeping(store, utc_now, settings.audit_retention)
    auditor = Auditor(utc_now, uuid7)
    rejections = RejectionAudit(store, auditor, world.rejections, uuid7)
    retired = RetiredKeys(store, auditor, utc_now, uuid7, settings.token_ttl)
    wait = threading.Event().wait
    periodic.start([keeper.run], wait)
    periodic.start([rejections.run, retired.run], wait)
    periodic.at_the_end(rejections.run)
    periodic.start(
        [sealing.Sealer(store, utc_now).run],
        wait,
        every=sealing.INTERVAL_SECONDS,
        after_work=sealing.BUSY_INTERVAL_SECONDS,
    )
    periodic.start([partial(_note_issuer_keys, world)], wait, every=_GAUGE_SECONDS)
    return RsgiApplication(create_app(settings, world), _THREADS, _ON_LOOP)


def _note_issuer_keys(world: World) -> None:
    world.metrics.issuer_keys(world.issuer_keys.status()["ageSeconds"])


def _address(host: str, port: int) -> str:
    """The IP address to listen on: of a name the IPv4 one, as in the default public URL.

    A port that is taken is found here, and not by the workers: they share it on purpose, also with a stranger of
    our user. Raises `UnusableAddress`.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda it: it[0] != socket.AF_INET)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        is_port = getattr(error, "errno", None) in {errno.EADDRINUSE, errno.EACCES}
        raise UnusableAddress(
            f"SENTRYAGENT_{'PORT' if is_port else 'HOST'}: cannot listen on {host}:{port} ({cause}); choose another"
        ) from error
    return str(address[0])
