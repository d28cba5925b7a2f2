"""The engines of a database: for reading, for writing durably or not, and on SQLite for writing without waiting."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from sqlalchemy import URL, Engine

from sentryagent_idp.concurrency.fair_lock import FairLock
from sentryagent_idp.store import sqlite
from sentryagent_idp.store.url import sqlite_file


@dataclass(frozen=True, slots=True)
class Engines:
    """Connections for reading and for writing; `hold_write_lock` queues writers, and `committer` does not wait for it.

    Commits of `lax` do not wait for the disk.

    Nothing is connected before the first transaction. Connections do not survive a fork: each process needs
    its own engines.
    """

    reader: Engine
    writer: Engine
    lax: Engine
    committer: Engine
    is_local: bool
    hold_write_lock: Callable[[], AbstractContextManager[None]] = nullcontext

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.reader.dispose()
        self.writer.dispose()
        self.lax.dispose()
        self.committer.dispose()


def open_engines(parts: URL) -> Engines:
    """Return the engines for a URL that `sentryagent_idp.store.url.parse` accepted."""
    path = sqlite_file(parts)
    if path is not None:
        return Engines(
            sqlite.reading_engine(path),
            sqlite.writing_engine(path),
            sqlite.lax_engine(path),
            sqlite.committing_engine(path),
            is_local=True,
            hold_write_lock=FairLock(sqlite.BUSY_SECONDS).hold,
        )
    # Imported only here: psycopg takes 75 ms to load, and SQLite does not need it.
    from sentryagent_idp.store import postgresql

    engine = postgresql.engine(parts)
    reader = engine.execution_options(postgresql_readonly=True)
    return Engines(reader, engine, postgresql.lax(engine), engine, is_local=False)


def migrating_engine(parts: URL) -> Engine:
    """Return an engine with one connection and without the time limits of requests, for the schema's steps."""
    path = sqlite_file(parts)
    if path is not None:
        return sqlite.migrating_engine(path)
    from sentryagent_idp.store import postgresql  # as above

    return postgresql.migrating_engine(parts)
