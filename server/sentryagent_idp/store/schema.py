"""The schema of a database: upgrade it, or check whether it is up to date."""

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
    """This version cannot work with the schema; the message says what to do."""


def migrate(url: str, wait: Callable[[float], object] = time.sleep) -> Sequence[str]:
    """Apply all missing steps in one transaction; returns their numbers in order.

    Several processes may start together: one migrates, the others wait and find nothing to do. A missing SQLite file
    is created, readable only by its owner, because it will contain signing keys.
    Raises `DatabaseUrlError`, `DatabaseUnavailable`, and `SchemaError` if the database is newer than this version or
    another program keeps its tables locked for about a minute.
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
    """Return whether the database has every step of this version; never creates a database.

    Raises `DatabaseUrlError`, `SchemaError` if the database is newer than this version, and `DatabaseUnavailable`.
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
    """Return whether the database lacks a step of this version."""
    return _current(connection) < _steps()[-1]


def alembic_config(connection: Connection) -> "Config":
    """Return the configuration for Alembic's commands to run the steps on this connection, in its transaction."""
    # Imported only when a step runs: Alembic takes 75 ms to load.
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # no permission to search the folder, or a name that is too long
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
        raise DatabaseUrlError(f"The SQLite database {path} cannot be created: {error.strerror}.") from error


def _between_requests(engine: Engine, wait: Callable[[float], object]) -> Sequence[str]:
    """Upgrade without making the requests of replicas wait long.

    PostgreSQL queues every request behind a step that waits for a table, for example one that a backup is reading. And
    a request that has locked one table and needs another one, locked by a step, would be aborted as a deadlock.
    Therefore a step gives up before that, the upgrade is rolled back, and it is tried again.
    """
    for attempt in range(_TRIES):
        try:
            with engine.begin() as connection:
                locks.take(connection, locks.Lock.MIGRATIONS)
                return _upgrade(connection)
        except OperationalError as error:
            if not locks.failed_on_lock(error):
                raise
        if attempt < _TRIES - 1:
            wait(_PAUSE_SECONDS)
    raise SchemaError(
        "Another program, such as pg_dump, is locking the tables of the database; try again when it has finished."
    )


def _upgrade(connection: Connection) -> Sequence[str]:
    before = _current(connection)
    _refuse_newer(before)
    missing = [step for step in _steps() if step > before]
    if missing:
        # Imported only when a step runs: Alembic takes 75 ms to load.
        from alembic import command

        locks.shorten_lock_timeout(connection)
        command.upgrade(alembic_config(connection), "head")
    return missing


def _refuse_newer(step: str) -> None:
    last = _steps()[-1]
    if step > last:
        raise SchemaError(
            f"The database is at step {step}, but this version supports steps up to {last}; run a newer version."
        )


def _current(connection: Connection) -> str:
    """Return the number of the last applied step, or an empty string for a new database."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _steps() -> Sequence[str]:
    """Return the numbers of all steps, in order."""
    return sorted(path.name[:3] for path in _FOLDER.glob("versions/[0-9][0-9][0-9]_*.py"))
