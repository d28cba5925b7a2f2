"""Connections to PostgreSQL with time limits, so that the provider can respond with 503 in time."""

from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo, timeout_from_conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Engine, NullPool, create_engine, event
from sqlalchemy.exc import ArgumentError

from sentryagent_idp.store.url import DatabaseUrlError

ANSWER_SECONDS = 4.0
"""The time limit of a statement; together with the waits for the pool and for a new connection it is below 10 s."""

_POOL_WAIT_SECONDS = 2.0
_POOL_SIZE = 10
_CONNECT_SECONDS = 3
_ENCODING = {"client_encoding": "utf8"}
"""Without it, psycopg would return text from a SQL_ASCII database as bytes."""

_DEFAULTS = {
    "connect_timeout": str(_CONNECT_SECONDS),
    "application_name": "sentryagent-idp",
    **_ENCODING,
    # Detect a peer that vanished without closing the connection, also between two statements.
    "tcp_user_timeout": "4000",
    "keepalives_idle": "2",
    "keepalives_interval": "1",
    "keepalives_count": "2",
}
# Shorter than our own limit: when the server ends the statement, the connection stays usable.
_SERVER_TIMEOUTS = (
    "-c statement_timeout=3500 -c lock_timeout=3000 -c idle_in_transaction_session_timeout=30000"
)


def engine(parts: URL) -> Engine:
    """Return an engine for requests; a pooled connection that broke while idle is replaced transparently.

    Raises `DatabaseUrlError` for parameters that libpq does not have.
    """
    _check(parts)
    engine = create_engine(
        parts,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_size=_POOL_SIZE,
        max_overflow=0,
        pool_timeout=_POOL_WAIT_SECONDS,
    )
    event.listen(engine, "do_connect", _connect)
    return engine


def lax(engine: Engine) -> Engine:
    """Return an engine that shares the connections, but whose commits do not wait for the disk."""
    lax = engine.execution_options()
    event.listen(lax, "begin", lambda it: it.exec_driver_sql("SET LOCAL synchronous_commit TO off"))
    return lax


def migrating_engine(parts: URL) -> Engine:
    """Return an engine without time limits, because a step on a large table can take long; raises as `engine`."""
    _check(parts)
    patient = parts.set(query={"connect_timeout": str(_CONNECT_SECONDS), **_ENCODING, **parts.query})
    return create_engine(patient, poolclass=NullPool)


def _check(parts: URL) -> None:
    """Raise `DatabaseUrlError` for parameters that are not libpq's; psycopg's `autocommit=1` would end transactions."""
    try:
        _, parameters = parts.get_dialect()().create_connect_args(parts)
        make_conninfo("", **parameters)
        timeout_from_conninfo(dict(parameters))
    except (ArgumentError, psycopg.ProgrammingError) as error:
        raise DatabaseUrlError(
            f"A parameter of the database URL is not valid ({str(error).strip()}); "
            "use parameters of libpq, such as sslmode=verify-full."
        ) from error


class _Connection(psycopg.Connection[Any]):
    """A connection that gives up on a server that is connected but does not respond, such as a frozen one."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server's response; raises `psycopg.OperationalError` if none arrives in time."""
        try:
            return super().wait(gen, interval=interval, timeout=timeout or ANSWER_SECONDS)
        except psycopg.OperationalError:
            if self.info.transaction_status is TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def _connect(_dialect: Any, _record: Any, args: tuple[Any, ...], parameters: dict[str, Any]) -> _Connection:
    """Connect as the URL says (SQLAlchemy's `do_connect`); its parameters override our defaults."""
    options = f"{_SERVER_TIMEOUTS} {parameters.get('options', '')}".strip()
    return _Connection.connect(*args, **{**_DEFAULTS, **parameters, "options": options})
