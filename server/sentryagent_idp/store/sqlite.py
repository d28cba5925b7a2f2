"""Connections to a SQLite file: many readers beside one writer, which is how its WAL works."""

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
"""How long a thread waits for its turn, and then for other processes: together below the contract's 10 s."""

_MIGRATION_SECONDS = 60.0
_RETRY_SECONDS = 0.0003
_MOVED = "the database file was moved or removed"
_NEVER_WAIT = "busy_timeout=0"
_CHECKPOINT = "wal_autocheckpoint=8000"
"""Pages of 4 KiB in the write-ahead log before they are copied into the file: most are written many times until then."""


class FileConnection(sqlite3.Connection):
    """A connection that knows whether its file is still the one at the path that it was opened by."""

    path: Path
    file: tuple[int, int] | None

    @property
    def is_current(self) -> bool:
        """False after the file was removed or another one took its place.

        SQLite goes on with the file that has no name any more: what it commits there is lost with the process.
        """
        return self.file == _identity(self.path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def reading_engine(path: Path) -> Engine:
    """An engine whose connections cannot write."""
    return _engine(path, _begin_reading, "query_only=ON", pool_size=10, max_overflow=-1)


def writing_engine(path: Path, *pragmas: str) -> Engine:
    """An engine of one connection: a process writes one transaction after the other."""
    begin = partial(_begin_writing, seconds=BUSY_SECONDS)
    return _engine(path, begin, _NEVER_WAIT, _CHECKPOINT, *pragmas, pool_size=1, max_overflow=0)


def lax_engine(path: Path) -> Engine:
    """As `writing_engine`, but a commit does not wait for the disk: until a later one does, a power failure undoes it."""
    return writing_engine(path, "synchronous=NORMAL")


def committing_engine(path: Path) -> Engine:
    """An engine of one connection, for transactions that never wait (`at_once`)."""
    return _engine(path, None, _NEVER_WAIT, _CHECKPOINT, pool_size=1, max_overflow=0)


@contextmanager
def at_once(connection: Connection) -> Iterator[None]:
    """A transaction that begins without waiting: raises `WriterBusy` if another connection writes.

    Raises `sqlite3.OperationalError` if the file is no longer the one at its path: a new connection finds the right one.

    The driver begins and ends it: for a connection that stays open, SQLAlchemy's way costs more than the statements do.
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
    connection.commit()  # it knows of a transaction if a statement went through SQLAlchemy
    driver.commit()


def migrating_engine(path: Path) -> Engine:
    """An engine that waits long for other processes, and makes the file one with a WAL.

    Foreign keys are off while steps run: a table that is rebuilt would take its dependents with it.
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
    """A connection to an existing file, in autocommit mode: transactions begin where we say.

    FULL synchronisation keeps a burnt `jti` burnt when the power fails (federation-security R-RPL-1).
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
    """Take the file's write lock, asking several times a millisecond: another process has it for one or two.

    SQLite's own waiting asks every 100 ms in the end: beside a busy process it would hardly ever find a gap.
    """
    deadline = monotonic() + seconds
    while not _is_begun(connection, is_last_try=monotonic() >= deadline):
        sleep(_RETRY_SECONDS)


def _is_begun(connection: Connection, *, is_last_try: bool) -> bool:
    """Whether the transaction has begun; the last try says why not."""
    try:
        _driver(connection).execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        # The low byte: while another process recovers the log after a crash, the code is SQLITE_BUSY_RECOVERY.
        if is_last_try or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _driver(connection: Connection) -> FileConnection:
    return connection.connection.driver_connection  # type: ignore[return-value]  # creator made it
