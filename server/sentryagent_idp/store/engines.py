"""The two engines of a database: one that reads, one that writes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from sqlalchemy import URL, Engine

from sentryagent_idp.concurrency.fair_lock import Turns
from sentryagent_idp.store import sqlite
from sentryagent_idp.store.url import sqlite_file


@dataclass(frozen=True, slots=True)
class Engines:
    """Connections for reading, connections for writing, and whose turn it is to write.

    Nothing is connected before the first transaction. Connections do not survive a fork: each process needs
    engines of its own.
    """

    reader: Engine
    writer: Engine
    turn: Callable[[], AbstractContextManager[None]] = nullcontext

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.reader.dispose()
        self.writer.dispose()


def open_engines(parts: URL) -> Engines:
    """The engines for a URL that `sentryagent_idp.store.url.parse` accepted."""
    path = sqlite_file(parts)
    if path is not None:
        return Engines(
            sqlite.reading_engine(parts, path),
            sqlite.writing_engine(parts, path),
            Turns(sqlite.BUSY_SECONDS).take,
        )
    # Loaded only here: psycopg takes 75 ms to load, and a start on SQLite needs none of it.
    from sentryagent_idp.store import postgresql

    engine = postgresql.engine(parts)
    return Engines(engine.execution_options(postgresql_readonly=True), engine)
