"""Copies a whole database: every row of every table, exactly as stored, so that the audit's hash chain stays valid."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Column, Engine, MetaData, Select, Table, func, insert, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from sentryagent_idp.errors import AdminRefused, DatabaseUnavailable
from sentryagent_idp.store import schema, sqlite
from sentryagent_idp.store.engines import migrating_engine
from sentryagent_idp.store.schema import SchemaError
from sentryagent_idp.store.url import DatabaseUrlError, parse, sqlite_file

_BATCH = 1000
_BOOKKEEPING = "alembic_version"


def copy_database(source_url: str, target_url: str) -> Mapping[str, int]:
    """Copy everything into an empty database, in one transaction; returns the number of rows by table.

    The target's schema is created or upgraded first. All replicas must be stopped: whatever a running replica writes is
    lost, including the record of a used token. Therefore a source that changed during the copy is refused at the end.
    Raises `AdminRefused`, and then leaves no row in the target.
    """
    source, target = _parsed("--from", source_url), _parsed("--to", target_url)
    if sqlite_file(source) is None and sqlite_file(target) is not None:
        # PostgreSQL skips sequence numbers; on SQLite the audit would report each gap as a removed record.
        raise AdminRefused(
            "--to: copying from PostgreSQL to SQLite is not supported; choose a PostgreSQL database"
        )
    with _named("--from"):
        if not schema.is_prepared(source_url):
            raise AdminRefused(
                "--from: the database is not prepared; run this version's `sentryagent-idp migrate` on it first"
            )
    with _named("--to"):
        schema.migrate(target_url)
    try:
        return _copy(source, target)
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", error)).partition("\n")[0]
        raise AdminRefused(f"The copy failed ({cause}) and left no rows in the target; try again") from error


def _parsed(option: str, url: str) -> URL:
    with _named(option):
        return parse(url)


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Name the option of the database that caused an error."""
    try:
        yield
    except (DatabaseUrlError, SchemaError) as error:
        raise AdminRefused(f"{option}: {error}") from error
    except DatabaseUnavailable as error:
        raise AdminRefused(f"{option}: {error.message}") from error


def _copy(source: URL, target: URL) -> Mapping[str, int]:
    reading, writing = _reader(source), _writer(target)
    try:
        with reading.begin() as rows, writing.begin() as into:
            tables = _tables(into)
            _refuse_unless_empty(into, tables)
            for table in tables:
                _copy_table(rows, into, table)
            copied = _counts(into, tables)
            with reading.begin() as later:
                if _counts(later, tables) != copied:
                    raise AdminRefused(
                        "--from: the database changed during the copy; stop every replica, then try again"
                    )
        return copied
    finally:
        reading.dispose()
        writing.dispose()


def _reader(parts: URL) -> Engine:
    """Return an engine whose transactions each read from a single snapshot of the database."""
    path = sqlite_file(parts)
    if path is not None:
        return sqlite.reading_engine(path)
    return migrating_engine(parts).execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )


def _writer(parts: URL) -> Engine:
    path = sqlite_file(parts)
    return migrating_engine(parts) if path is None else sqlite.writing_engine(path)


def _tables(connection: Connection) -> list[Table]:
    """Return the tables as the database itself describes them, referenced tables first.

    These column types pass values through unchanged; the types of the use cases would re-encode JSON.
    """
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != _BOOKKEEPING]


def _refuse_unless_empty(connection: Connection, tables: list[Table]) -> None:
    full = [name for name, count in _counts(connection, tables).items() if count]
    if full:
        raise AdminRefused(f"--to: the database is not empty ({', '.join(full)}); name an empty database")


def _counts(connection: Connection, tables: list[Table]) -> Mapping[str, int]:
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in tables
    }


def _copy_table(source: Connection, target: Connection, table: Table) -> None:
    rows = source.execution_options(yield_per=_BATCH).execute(_in_order(table))
    with _own_numbers(target, table):
        for batch in rows.mappings().partitions():
            target.execute(insert(table), [dict(row) for row in batch])


def _in_order(table: Table) -> Select[Any]:
    """Select all rows, starting with those that refer to no other row: a derived policy comes after its origin."""
    references = [key.parent for key in table.foreign_keys if key.column.table is table]
    return select(table).order_by(*(column.is_not(None) for column in references))


@contextmanager
def _own_numbers(connection: Connection, table: Table) -> Iterator[None]:
    """Allow explicit values in columns that PostgreSQL numbers itself, then continue its numbering after them."""
    numbered = [column for column in table.columns if column.identity is not None]
    for column in numbered:
        _generate(connection, column, "BY DEFAULT")
    yield
    for column in numbered:
        _generate(connection, column, "ALWAYS")
        last = connection.execute(select(func.max(column))).scalar()
        if last is not None:
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            connection.execute(select(func.setval(sequence, last)))


def _generate(connection: Connection, column: Column[int], how: str) -> None:
    connection.execute(
        text(f"ALTER TABLE {column.table.name} ALTER COLUMN {column.name} SET GENERATED {how}")
    )
