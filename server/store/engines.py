"""Connections to SQLite and to PostgreSQL, with the bounds that let an outage be answered within 10 s."""

import sqlite3
from pathlib import Path

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import Connection

from server.store.url import sqlite_file

_SQLITE_BUSY_SECONDS = 4
_POOL_WAIT_SECONDS = 2
_POOL_SIZE = 10


def open_engines(parts: URL) -> tuple[Engine, Engine]:
    """An engine for transactions that only read, and one for those that write.

    Nothing is connected yet. Each process needs its own: connections do not survive a fork.
    """
    path = sqlite_file(parts)
    return _postgresql(parts) if path is None else _sqlite(parts, path)


def _sqlite(parts: URL, path: Path) -> tuple[Engine, Engine]:
    """Many readers beside one writer, which is how SQLite's WAL works.

    The threads of a process queue for its one writing connection; only processes meet at the file's lock,
    which SQLite grants by polling and not in turn.
    """
    reader = create_engine(
        parts,
        creator=lambda: connect_sqlite(path, "query_only=ON", busy_seconds=_SQLITE_BUSY_SECONDS),
        pool_size=_POOL_SIZE,
        max_overflow=-1,
    )
    writer = create_engine(
        parts,
        creator=lambda: connect_sqlite(path, busy_seconds=_SQLITE_BUSY_SECONDS),
        pool_size=1,
        max_overflow=0,
        pool_timeout=_SQLITE_BUSY_SECONDS,
    )
    begin_with(reader, "BEGIN")
    begin_with(writer, "BEGIN IMMEDIATE")
    return reader, writer


def connect_sqlite(path: Path, *pragmas: str, busy_seconds: float) -> sqlite3.Connection:
    """A connection to an existing file, in autocommit mode: transactions begin where we say.

    FULL synchronisation keeps a burnt `jti` burnt when the power fails (R-RPL-1). A missing file is an error:
    only `server.store.schema.migrate` makes one.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    for pragma in ("synchronous=FULL", "foreign_keys=ON", *pragmas):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def begin_with(engine: Engine, statement: str) -> None:
    """Begin every transaction of a SQLite engine with `statement`."""

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)


def _postgresql(parts: URL) -> tuple[Engine, Engine]:
    """One pool for both; a reading transaction is READ ONLY to the server."""
    # Loaded only here: psycopg costs a third of the command line's start on SQLite.
    from server.store.postgresql import connect

    engine = create_engine(
        parts,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_size=_POOL_SIZE,
        max_overflow=0,
        pool_timeout=_POOL_WAIT_SECONDS,
    )
    event.listen(engine, "do_connect", connect)
    return engine.execution_options(postgresql_readonly=True), engine
