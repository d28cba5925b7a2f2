"""The schema of a database: bring it up to date, or ask whether it is."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from sentryagent_idp.store import locks, migrations
from sentryagent_idp.store.engines import migrating_engine, open_engines
from sentryagent_idp.store.failures import outages
from sentryagent_idp.store.url import DatabaseUrlError, parse, sqlite_file

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(migrations.__file__).parent
_TRIES = 40
_PAUSE_SECONDS = 1


class SchemaError(Exception):
    """The schema is not one that this version can work with; the message says what to do."""


def migrate(url: str, wait: Callable[[float], object] = time.sleep) -> Sequence[str]:
    """Apply the steps that are missing, all in one transaction; returns their numbers in order.

    Several processes may start together: one migrates, the others wait and find nothing to do. A SQLite file
    that is missing is made, readable by its owner alone, because signing keys will lie in it.
    Raises `DatabaseUrlError`, `DatabaseUnavailable`, and `SchemaError` where the database is newer than this version,
    or something else holds its tables for minutes.
    """
    parts = parse(url)
    path = sqlite_file(parts)
    if path is not None:
        _make_file(path)
    engine = migrating_engine(parts)
    try:
        with outages(to_operator=True):
            return _between_requests(engine, wait)
    finally:
        engine.dispose()


def is_prepared(url: str) -> bool:
    """Whether the database has every table; never makes one.

    Raises `DatabaseUrlError`, `SchemaError` where the database is newer than this version, and `DatabaseUnavailable`.
    """
    parts = parse(url)
    path = sqlite_file(parts)
    if path is not None and not _exists(path):
        return False
    engines = open_engines(parts)
    try:
        with outages(to_operator=True), engines.reader.begin() as connection:
            _refuse_newer(_current(connection))
            return not pending(connection)
    finally:
        engines.close()


def pending(connection: Connection) -> bool:
    """Whether the database lacks a step of this version."""
    return _current(connection) < _steps()[-1]


def alembic_config(connection: Connection) -> "Config":
    """What Alembic's own commands need to run the steps on this connection, in its transaction."""
    # Loaded only where a step is run: Alembic takes 75 ms to load.
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a folder that may not be searched, or a name that is too long
        raise DatabaseUrlError(f"The SQLite database {path} cannot be used: {error.strerror}.") from error


def _make_file(path: Path) -> None:
    if not _exists(path.parent):
        raise DatabaseUrlError(
            f"The folder {path.parent} of the SQLite database does not exist; create it first."
        )
    if _exists(path):
        return
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise DatabaseUrlError(f"The SQLite database {path} cannot be made: {error.strerror}.") from error


def _between_requests(engine: Engine, wait: Callable[[float], object]) -> Sequence[str]:
    """Upgrade, and never let the requests of replicas wait long for it.

    PostgreSQL queues every request behind a step that waits for a table, such as one that a backup reads; and a
    request that has one table and needs another one, which a step has, would be ended as a deadlock. So a step gives
    up before that, everything is taken back, and it is tried again.
    """
    for attempt in range(_TRIES):
        try:
            with engine.begin() as connection:
                locks.take(connection, locks.Lock.MIGRATIONS)
                return _upgrade(connection)
        except OperationalError as error:
            if not locks.came_too_late(error):
                raise
        if attempt < _TRIES - 1:
            wait(_PAUSE_SECONDS)
    raise SchemaError(
        "Another program, such as pg_dump, holds the tables of the database; migrate when it has ended."
    )


def _upgrade(connection: Connection) -> Sequence[str]:
    before = _current(connection)
    _refuse_newer(before)
    missing = [step for step in _steps() if step > before]
    if missing:
        # Loaded only where a step is run: Alembic takes 75 ms to load.
        from alembic import command

        locks.hurry(connection)
        command.upgrade(alembic_config(connection), "head")
    return missing


def _refuse_newer(step: str) -> None:
    last = _steps()[-1]
    if step > last:
        raise SchemaError(
            f"The database is at step {step}, and this version knows none after {last}; "
            "run a version that is as new as the database."
        )


def _current(connection: Connection) -> str:
    """The number of the last step that was applied; empty in a new database."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _steps() -> Sequence[str]:
    """The numbers of all steps, in order."""
    return sorted(path.name[:3] for path in _FOLDER.glob("versions/[0-9][0-9][0-9]_*.py"))
