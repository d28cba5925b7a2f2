"""Statements run directly by the driver: in every exchange, SQLAlchemy's overhead would exceed their own cost."""

from collections.abc import Collection, Sequence
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Dialect, Table
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

_PLACEHOLDERS = {"qmark": "?", "pyformat": "%s"}


def run(connection: Connection, statement: str, values: Sequence[Any] = ()) -> Sequence[tuple[Any, ...]]:
    """Run a statement in the connection's transaction; returns its rows, with the driver's own values.

    Raises SQLAlchemy's errors, as SQLAlchemy itself would.
    """
    base = connection.dialect.loaded_dbapi.Error
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []
    except base as error:
        raise DBAPIError.instance(
            statement, None, error, base, hide_parameters=True, dialect=connection.dialect
        ) from error
    finally:
        cursor.close()


def places(dialect: Dialect, count: int) -> str:
    """Return `count` placeholders, separated by commas."""
    return ", ".join([_PLACEHOLDERS[dialect.paramstyle]] * count)


class InsertMany:
    """Inserts any number of rows into some columns of a table, in one statement.

    SQLAlchemy would run one statement per row, and the thread would release the interpreter at each; under load it then
    waits for other threads while it holds the database's lock. Meant for tens of rows: each number of rows is a
    statement of its own, which the driver keeps in memory.
    """

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._table = table
        self._names = tuple(names)
        self._statement = cache(self._statement_for)

    def __call__(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Insert the rows, at least one, in this order; values must have types that the driver accepts."""
        self._run(connection, rows)

    def new(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> Collection[Any]:
        """Insert those of the rows, at least one, whose primary keys do not exist yet; returns these keys.

        The unique key decides, not an earlier query: of several concurrent transactions exactly one inserts.
        """
        (key,) = self._table.primary_key.columns
        rest = f" ON CONFLICT DO NOTHING RETURNING {key.name}"
        return {row[0] for row in self._run(connection, rows, rest)}

    def _run(
        self, connection: Connection, rows: Sequence[Sequence[Any]], rest: str = ""
    ) -> Sequence[tuple[Any, ...]]:
        statement = self._statement(connection.dialect, len(rows)) + rest
        return run(connection, statement, tuple(chain.from_iterable(rows)))

    def _statement_for(self, dialect: Dialect, rows: int) -> str:
        row = f"({places(dialect, len(self._names))})"
        return f"INSERT INTO {self._table.name} ({', '.join(self._names)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - names of our own tables
