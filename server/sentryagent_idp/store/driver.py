"""Statements that the driver runs itself: for those of every exchange, SQLAlchemy's way there costs more than they do."""

from collections.abc import Collection, Sequence
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Dialect, Table
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

_PLACEHOLDERS = {"qmark": "?", "pyformat": "%s"}


def run(connection: Connection, statement: str, values: Sequence[Any] = ()) -> Sequence[tuple[Any, ...]]:
    """Run a statement in the transaction of the connection; its rows, with the driver's own values.

    Raises SQLAlchemy's errors, as its own way does.
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
    """So many placeholders, with a comma between them."""
    return ", ".join([_PLACEHOLDERS[dialect.paramstyle]] * count)


class InsertMany:
    """Inserts rows into some columns of a table, whatever their number, as one statement.

    SQLAlchemy runs it once for each row, and with each the thread gives up the interpreter; under load it then waits
    until another thread has done its work, with the database's lock in its hands. Meant for tens of rows: each number
    of them is a statement of its own, which the driver keeps in memory.
    """

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._table = table
        self._names = tuple(names)
        self._statement = cache(self._statement_for)

    def __call__(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Insert the rows, of which there must be one at least, in their order; values are those that the driver takes."""
        self._run(connection, rows)

    def new(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> Collection[Any]:
        """Insert those of the rows, of which there must be one at least, whose primary keys are new; returns these keys.

        The unique key decides, not a look beforehand: of several transactions at the same moment exactly one inserts.
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
