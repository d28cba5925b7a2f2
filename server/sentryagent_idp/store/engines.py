"""The engines of a database: for reading, for writing durably or not, and on SQLite for commits that never wait their turn."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from sqlalchemy import URL, Engine

from sentryagent_idp.concurrency.fair_lock import Turns
from sentryagent_idp.store import sqlite
from sentryagent_idp.store.url import sqlite_file


@dataclass(frozen=True, slots=True)
class Engines:
    """Connections for reading, connections for writing, whose turn it is to write; `committer` never waits for a turn.

    Commits of `lax` do not wait for the disk.

    Nothing is connected before the first transaction. Connections do not survive a fork: each process needs
    engines of its own.
    """

    reader: Engine
    writer: Engine
    lax: Engine
    committer: Engine
    is_local: bool
    turn: Callable[[], AbstractContextManager[None]] = nullcontext

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.reader.dispose()
        self.writer.dispose()
        self.lax.dispose()
        self.committer.dispose()


def open_engines(parts: URL) -> Engines:
    """The engines for a URL that `sentryagent_idp.store.url.parse` accepted."""
    path = sqlite_file(parts)
    if path is not None:
        return Engines(
            sqlite.reading_engine(path),
            sqlite.writing_engine(path),
            sqlite.lax_engine(path),
            sqlite.committing_engine(path),
            is_local=True,
            turn=Turns(sqlite.BUSY_SECONDS).take,
        )
    # Loaded only here: psycopg takes 75 ms to load, and a start on SQLite needs none of it.
    from sentryagent_idp.store import postgresql

    engine = postgresql.engine(parts)
    reader = engine.execution_options(postgresql_readonly=True)
    return Engines(reader, engine, postgresql.lax(engine), engine, is_local=False)


def migrating_engine(parts: URL) -> Engine:
    """An engine of one connection without the bounds of requests, for the schema's steps."""
    path = sqlite_file(parts)
    if path is not None:
        return sqlite.migrating_engine(path)
    from sentryagent_idp.store import postgresql  # as above

    return postgresql.migrating_engine(parts)
