"""A consistent copy of a SQLite database, taken while other processes write to it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sentryagent_idp.errors import AdminRefused
from sentryagent_idp.store import sqlite
from sentryagent_idp.store.url import parse, sqlite_file

_PAGES = 1024
"""Pages of 4 KiB copied in one step; the process handles signals between steps."""
_INSTRUCTIONS = 1_000_000
"""SQLite instructions of the integrity check between two points at which the process handles signals."""


def backup(url: str, target: Path) -> str:
    """Copy the database into a new file of mode 0600 and check the copy; returns the last step of its schema.

    Works on any version of the schema. If the backup fails or the process is terminated, no file is left behind.
    Raises `DatabaseUrlError`, `AdminRefused`.
    """
    source = _source(url)
    try:
        with closing(sqlite.connect(source, "query_only=ON")) as connection:
            # Read everything in one transaction: otherwise each write by another process would restart the copy. Writers
            # do not wait for it; the write-ahead log grows until it ends.
            connection.execute("BEGIN")
            _step(connection)
            with _new_file(target):
                _copy(connection, target)
                connection.rollback()  # the check needs no snapshot
                return _checked(target)
    except sqlite3.Error as error:
        raise AdminRefused(f"The backup failed ({error}); no file was left behind.") from error


def _source(url: str) -> Path:
    path = sqlite_file(parse(url))
    if path is None:
        raise AdminRefused("`backup` supports only SQLite; back up PostgreSQL with `pg_dump`.")
    if not path.is_file():
        raise AdminRefused(f"SENTRYAGENT_DATABASE_URL: the database {path} does not exist.")
    return path


@contextmanager
def _new_file(path: Path) -> Iterator[None]:
    """Create a file that only its owner can ever read; delete it if the block fails."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError as error:
        raise AdminRefused(f"{path} already exists; name a new file for the backup.") from error
    except OSError as error:
        raise AdminRefused(f"{path} cannot be created: {error.strerror}.") from error
    try:
        yield
    except BaseException:
        for name in (path, *(Path(f"{path}{suffix}") for suffix in ("-wal", "-shm"))):
            name.unlink(missing_ok=True)
        raise


def _copy(source: sqlite3.Connection, target: Path) -> None:
    with closing(sqlite.connect(target.absolute(), "journal_mode=OFF")) as copy:
        source.backup(copy, pages=_PAGES, progress=lambda *_: None)


def _checked(target: Path) -> str:
    with closing(sqlite.connect(target.absolute(), "query_only=ON")) as copy:
        copy.set_progress_handler(lambda: 0, _INSTRUCTIONS)
        (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise AdminRefused(f"The copy is damaged ({verdict}) and was deleted; check the database itself.")
        return _step(copy)


def _step(connection: sqlite3.Connection) -> str:
    """Return the last step of the schema; raises `AdminRefused` if the database was never prepared."""
    tables = "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"
    is_prepared = connection.execute(tables).fetchone() == (1,)
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if is_prepared else None
    if row is None:
        raise AdminRefused(
            "SENTRYAGENT_DATABASE_URL: the database is not prepared; there is nothing to back up."
        )
    return str(row[0])
