"""Database errors, translated into the provider's errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as WaitTimeout

from sentryagent_idp.errors import DatabaseUnavailable, ServiceError, ValidationFailed

RETRY_AFTER_SECONDS = 2
_OUTAGES = (OperationalError, InterfaceError, WaitTimeout, sqlite3.OperationalError)
"""Errors of the database itself, not of a statement."""


@contextmanager
def outages(*, to_operator: bool = False) -> Iterator[None]:
    """Turn every failure of the database itself into `DatabaseUnavailable`, with its cause.

    Only an operator sees the driver's message, because it can name hosts and users.
    A value that cannot be stored, such as a NUL character on PostgreSQL, is an error of the request:
    `ValidationFailed`.
    """
    try:
        yield
    except DataError as error:
        raise ValidationFailed(
            "request", "a value cannot be stored; leave out NUL characters and numbers of ten digits or more"
        ) from error
    except (DatabaseError, *_OUTAGES) as error:
        # SQLite reports a damaged file, or one that is not a database, as the base class itself.
        if not isinstance(error, _OUTAGES) and type(error) is not DatabaseError:
            raise
        raise _unavailable(error, to_operator=to_operator) from error


def _unavailable(error: Exception, *, to_operator: bool) -> DatabaseUnavailable:
    message = f"The database is not responding; try again in {RETRY_AFTER_SECONDS} s."
    if to_operator:
        cause = str(getattr(error, "orig", error)).partition("\n")[0]
        message = f"The database cannot be used ({cause}); check its URL, and that it is running."
    return DatabaseUnavailable(message, retry_after=RETRY_AFTER_SECONDS)


@contextmanager
def unique(connection: Connection, column: str, refusal: ServiceError) -> Iterator[None]:
    """Raise `refusal` if the block violates the unique constraint of `column`; the transaction stays usable."""
    try:
        with connection.begin_nested():
            yield
    except IntegrityError as error:
        if not _names(error, column):
            raise
        raise refusal from error


def _names(error: IntegrityError, column: str) -> bool:
    """Return whether the violated constraint is the unique constraint of `column`.

    SQLite's message names `table.column`. PostgreSQL's message quotes the row's values, so only the constraint's name
    is used there.
    """
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is not None:
        return bool(
            diagnosis.constraint_name.startswith("uq_") and diagnosis.constraint_name.endswith(column)
        )
    return str(error.orig).startswith("UNIQUE") and str(error.orig).endswith(f".{column}")
