"""The schema of a database: bring it up to date, or ask whether it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from sentryagent_idp.store import locks, migrations
from sentryagent_idp.store.engines import migrating_engine, open_engines
from sentryagent_idp.store.failures import outages
from sentryagent_idp.store.url import DatabaseUrlError, parse, sqlite_file

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(migrations.__file__).parent


class SchemaError(Exception):
    """The schema is not one that this version can work with; the message says what to do."""


def migrate(url: str) -> Sequence[str]:
    """Apply the steps that are missing, all in one transaction; returns their numbers in order.

    Several processes may start together: one migrates, the others wait and find nothing to do. A SQLite file
    that is missing is made, readable by its owner alone, because signing keys will lie in it.
    Raises `DatabaseUrlError`, `SchemaError` where the database is newer than this version, `DatabaseUnavailable`.
    """
    parts = parse(url)
    path = sqlite_file(parts)
    if path is not None:
        _make_file(path)
    engine = migrating_engine(parts)
    try:
        with outages(to_operator=True), engine.begin() as connection:
            locks.take(connection, locks.Lock.MIGRATIONS)
            return _upgrade(connection)
    finally:
        engine.dispose()


def is_prepared(url: str) -> bool:
    """Whether the database has every table; never makes one.

    Raises `DatabaseUrlError`, `SchemaError` where the database is newer than this version, and `DatabaseUnavailable`.
    """
    parts = parse(url)
    path = sqlite_file(parts)
    if path is not None and not path.exists():
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


def _make_file(path: Path) -> None:
    if not path.parent.is_dir():
        raise DatabaseUrlError(
            f"The folder {path.parent} of the SQLite database does not exist; create it first."
        )
    if path.exists():
        return
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise DatabaseUrlError(f"The SQLite database {path} cannot be made: {error.strerror}.") from error


def _upgrade(connection: Connection) -> Sequence[str]:
    before = _current(connection)
    _refuse_newer(before)
    missing = [step for step in _steps() if step > before]
    if missing:
        # Loaded only where a step is run: Alembic takes 75 ms to load.
        from alembic import command

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
