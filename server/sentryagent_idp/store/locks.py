"""Locks across all replicas, held until the write transaction ends.

PostgreSQL's advisory locks need no row and block no reader. On SQLite, the write transaction itself is the lock.
"""

from enum import IntEnum

from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

_WAIT = text("SELECT pg_advisory_xact_lock(:lock)")
_TRY = text("SELECT pg_try_advisory_xact_lock(:lock)")
_SHORT_TIMEOUT = text("SET LOCAL lock_timeout = '500ms'")
_LOCK_ERRORS = frozenset({"55P03", "40P01"})
"""lock_not_available and deadlock_detected: https://www.postgresql.org/docs/current/errcodes-appendix.html."""


class Lock(IntEnum):
    """The locks; their numbers begin with "Sentry" in ASCII, so that they differ from other programs' locks."""

    MIGRATIONS = 0x53656E747279
    SIGNING_KEYS = 0x53656E74727901
    AUDIT_SEALS = 0x53656E74727902


def take(connection: Connection, lock: Lock) -> None:
    """Wait for the lock, at most as long as the connection's own lock timeout."""
    if connection.dialect.name == "postgresql":
        connection.execute(_WAIT, {"lock": lock.value})


def try_take(connection: Connection, lock: Lock) -> bool:
    """Take the lock if it is free; returns whether it was taken."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.execute(_TRY, {"lock": lock.value}).scalar_one())


def shorten_lock_timeout(connection: Connection) -> None:
    """Let each later statement of the transaction fail if it waits for a lock longer than half a second."""
    if connection.dialect.name == "postgresql":
        connection.execute(_SHORT_TIMEOUT)


def failed_on_lock(error: DBAPIError) -> bool:
    """Return whether a statement failed because of a lock: after its timeout, or as the victim of a deadlock."""
    return getattr(error.orig, "sqlstate", None) in _LOCK_ERRORS
