"""Parsing of database URLs."""

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_FORMS = "use sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"


class DatabaseUrlError(ValueError):
    """The URL does not name a database that the provider can use; the message never shows a password."""


def parse(url: str) -> URL:
    """Return the parts of a database URL.

    Raises `DatabaseUrlError` for another engine, for a SQLite URL without a file or with parameters, for a host name
    that DNS cannot look up, and for a NUL: libpq would ignore the rest of a password after it.
    """
    try:
        url.encode()
        parts = make_url(url)
        for host in (parts.host or "").split(","):
            host.encode("idna")
    except (ArgumentError, ValueError) as error:
        raise DatabaseUrlError(f"The database URL cannot be read; {_FORMS}.") from error
    if "\0" in url or "%00" in url:
        raise DatabaseUrlError(f"The database URL cannot be read: it contains a NUL character; {_FORMS}.")
    if parts.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise DatabaseUrlError(f'Unsupported database driver "{parts.drivername}"; {_FORMS}.')
    if parts.drivername == "sqlite" and (
        parts.query or parts.host or parts.database in {None, "", ":memory:"}
    ):
        raise DatabaseUrlError("A SQLite database is a file and takes no parameters; use sqlite:///FILE.")
    return parts


def sqlite_file(parts: URL) -> Path | None:
    """Return the absolute path of a SQLite database, or `None` for PostgreSQL."""
    return Path(parts.database).absolute() if parts.drivername == "sqlite" and parts.database else None
