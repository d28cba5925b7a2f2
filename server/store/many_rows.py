"""Inserting several rows as one statement."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Dialect, Table
from sqlalchemy.engine import Connection

_PLACEHOLDERS = {"qmark": "?", "pyformat": "%s"}


class InsertMany:
    """Inserts rows into some columns of a table, whatever their number.

    The usual way runs the statement once for each row, and with each the thread gives up the interpreter; under load
    it then waits until another thread has done its work, with the database's lock in its hands. Meant for tens of rows:
    each number of them is a statement of its own, which the driver keeps in memory.
    """

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._table = table
        self._names = tuple(names)
        self._processors = cache(self._processors_for)
        self._statement = cache(self._statement_for)

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows, of which there must be one at least, in their order."""
        dialect = connection.dialect
        processors = self._processors(dialect)
        values = tuple(chain.from_iterable(_values(row, processors) for row in rows))
        connection.exec_driver_sql(self._statement(dialect.paramstyle, len(rows)), values)

    def _processors_for(self, dialect: Dialect) -> list[tuple[str, Callable[[Any], Any] | None]]:
        """What makes of each column's value the one that the driver takes."""
        return [
            (name, self._table.c[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in self._names
        ]

    def _statement_for(self, paramstyle: str, count: int) -> str:
        row = f"({', '.join([_PLACEHOLDERS[paramstyle]] * len(self._names))})"
        return f"INSERT INTO {self._table.name} ({', '.join(self._names)}) VALUES {', '.join([row] * count)}"  # noqa: S608 - names of our own tables


def _values(
    row: Mapping[str, Any], processors: Sequence[tuple[str, Callable[[Any], Any] | None]]
) -> list[Any]:
    return [row[name] if process is None else process(row[name]) for name, process in processors]
