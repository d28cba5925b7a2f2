"""Parsing database URLs."""

from pathlib import Path

import pytest

from sentryagent_idp.store.engines import migrating_engine, open_engines
from sentryagent_idp.store.url import DatabaseUrlError, parse, sqlite_file


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/lib/idp.db", Path("/var/lib/idp.db")),
        ("sqlite:///idp.db", Path.cwd() / "idp.db"),
        ("sqlite:///50%25 #1.db", Path.cwd() / "50% #1.db"),
        ("postgresql+psycopg://idp@db.example/idp?sslmode=verify-full", None),
    ],
)
def test_a_url_names_a_file_or_a_server(url, path):
    """A SQLite URL names a file, absolute or relative to the working directory."""
    assert sqlite_file(parse(url)) == path


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "cannot be read"),
        ("idp.db", "cannot be read"),
        ("mysql://u:secret@h/d", 'Unsupported database driver "mysql"; use sqlite'),
        ("postgresql://u:secret@h/d", 'Unsupported database driver "postgresql"; use sqlite'),
        ("postgresql+psycopg2://u:secret@h/d", "postgresql+psycopg://"),
        ("postgresql+psycopg://u:secret@h:port/d", "cannot be read"),
        ("postgresql+psycopg://u:secret@\udcff/d", "cannot be read"),
        ("postgresql+psycopg://u:secret@a..b/d", "cannot be read"),
        (f"postgresql+psycopg://u:secret@{'x' * 64}.example/d", "cannot be read"),
        ("postgresql+psycopg://u:secret%00x@h/d", "cannot be read"),
        ("postgresql+psycopg://u:secret\udcff@h/d", "cannot be read"),
        ("sqlite:///a\0.db", "cannot be read"),
        ("sqlite:///a%00.db", "cannot be read"),
        ("sqlite://", "is a file"),
        ("sqlite:///", "is a file"),
        ("sqlite:///:memory:", "is a file"),
        ("sqlite:///idp.db?mode=ro", "takes no parameters"),
        ("sqlite://host/idp.db", "is a file"),
    ],
)
def test_a_url_that_names_no_database_says_what_to_write(url, says):
    """The error says what to write and never shows the password."""
    with pytest.raises(DatabaseUrlError) as raised:
        parse(url)
    assert says in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("open_one", [open_engines, migrating_engine])
@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ("sslmod=verify-full", 'invalid connection option "sslmod"'),
        ("connect_timeout=soon", "bad value for connect_timeout"),
        ("port=abc", "non-integer port"),
        ("autocommit=1", 'invalid connection option "autocommit"'),
        ("row_factory=x", 'invalid connection option "row_factory"'),
    ],
)
def test_parameters_that_cannot_be_used(open_one, query, cause):
    """Bad parameters are found before connecting; those of the Python driver would change transactions."""
    with pytest.raises(DatabaseUrlError, match=cause) as raised:
        open_one(parse(f"postgresql+psycopg://u:secret@h/d?{query}"))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("open_one", [open_engines, migrating_engine])
def test_parameters_of_libpq(open_one):
    """Parameters of libpq are passed on."""
    open_one(parse("postgresql+psycopg://u@h1,h2/d?sslmode=verify-full&connect_timeout=5&options=-c%20a%3Db"))
