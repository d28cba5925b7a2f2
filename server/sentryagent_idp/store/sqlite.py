"""Connections to a SQLite file: many readers alongside one writer, as its write-ahead log (WAL) allows."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep

from sqlalchemy import Engine, QueuePool, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InvalidatePoolError

from sentryagent_idp.ports import WriterBusy

BUSY_SECONDS = 4.0
"""How long a thread waits for other threads, and then for other processes: together below the 10 s of docs/operations.md."""

_MIGRATION_SECONDS = 60.0
_RETRY_SECONDS = 0.0003
_MOVED = "the database file was moved or removed"
_NEVER_WAIT = "busy_timeout=0"
_CHECKPOINT = "wal_autocheckpoint=8000"
"""Pages of 4 KiB in the WAL before they are copied into the file: by then, most were written many times."""


class FileConnection(sqlite3.Connection):
    """A connection that knows whether its path still leads to the file that it opened."""

    path: Path
    file: tuple[int, int] | None

    @property
    def is_current(self) -> bool:
        """Whether the path still leads to the opened file, which was neither deleted nor replaced.

        SQLite continues with a file that no longer has a name: whatever it commits there is lost with the process.
        """
        return self.file == _identity(self.path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def reading_engine(path: Path) -> Engine:
    """Return an engine whose connections cannot write."""
    return _engine(path, _begin_reading, "query_only=ON", pool_size=10, max_overflow=-1)


def writing_engine(path: Path, *pragmas: str) -> Engine:
    """Return an engine with one connection: a process runs one write transaction at a time."""
    begin = partial(_begin_writing, seconds=BUSY_SECONDS)
    return _engine(path, begin, _NEVER_WAIT, _CHECKPOINT, *pragmas, pool_size=1, max_overflow=0)


def lax_engine(path: Path) -> Engine:
    """Return a `writing_engine` whose commits do not wait for the disk: a power failure can undo them until the next durable one."""
    return writing_engine(path, "synchronous=NORMAL")


def committing_engine(path: Path) -> Engine:
    """Return an engine with one connection, for transactions that never wait (`at_once`)."""
    return _engine(path, None, _NEVER_WAIT, _CHECKPOINT, pool_size=1, max_overflow=0)


@contextmanager
def at_once(connection: Connection) -> Iterator[None]:
    """Begin a transaction without waiting; raises `WriterBusy` if another connection is writing.

    Raises `sqlite3.OperationalError` if the path no longer leads to the file: a new connection opens the right one.

    The driver begins and ends the transaction: on a connection that stays open, SQLAlchemy's own handling would cost
    more than the statements do.
    """
    driver = _driver(connection)
    if not driver.is_current:
        raise sqlite3.OperationalError(_MOVED)
    if not _is_begun(connection, is_last_try=False):
        raise WriterBusy
    try:
        yield
    except BaseException:
        connection.rollback()
        driver.rollback()
        raise
    connection.commit()  # SQLAlchemy began a transaction if it ran a statement
    driver.commit()


def migrating_engine(path: Path) -> Engine:
    """Return an engine that waits long for other processes, and switches the file to WAL mode.

    Foreign keys are off while steps run: otherwise, rebuilding a table would delete the rows that refer to it.
    """
    begin = partial(_begin_writing, seconds=_MIGRATION_SECONDS)
    return _engine(path, begin, "foreign_keys=OFF", "journal_mode=WAL", _NEVER_WAIT, pool_size=1)


def _engine(path: Path, begin: Callable[[Connection], object] | None, *pragmas: str, **pool: int) -> Engine:
    engine = create_engine("sqlite://", creator=lambda: connect(path, *pragmas), poolclass=QueuePool, **pool)
    event.listen(engine, "checkout", _check_file)
    if begin:
        event.listen(engine, "begin", begin)
    return engine


def _check_file(connection: FileConnection, *_: object) -> None:
    if not connection.is_current:
        raise InvalidatePoolError(_MOVED)


def connect(path: Path, *pragmas: str) -> FileConnection:
    """Connect to an existing file, in autocommit mode: transactions begin only where we begin them.

    FULL synchronisation keeps a used `jti` used after a power failure.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=FileConnection,
    )
    connection.path, connection.file = path, _identity(path)
    try:
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", *pragmas):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing(connection: Connection, seconds: float) -> None:
    """Take the file's write lock, trying several times per millisecond: another process holds it for one or two.

    SQLite's own busy handler eventually tries only every 100 ms: alongside a busy process it would rarely succeed.
    """
    deadline = monotonic() + seconds
    while not _is_begun(connection, is_last_try=monotonic() >= deadline):
        sleep(_RETRY_SECONDS)


def _is_begun(connection: Connection, *, is_last_try: bool) -> bool:
    """Try to begin the transaction and return whether it began; the last try raises the error instead."""
    try:
        _driver(connection).execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        # Only the low byte: while another process recovers the log after a crash, the code is SQLITE_BUSY_RECOVERY.
        if is_last_try or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _driver(connection: Connection) -> FileConnection:
    return connection.connection.driver_connection  # type: ignore[return-value]  # creator opened it
