"""`sentryagent-idp backup FILE`: a consistent copy that only its owner can read, or no file at all."""

import os
import signal
import sqlite3
from contextlib import closing

import pytest

from kit import cli
from kit.cli import assert_fails
from kit.provider import HERE, NOW, key_admin
from sentryagent_idp.store import backup as copying
from sentryagent_idp.store.database import Database

UNPREPARED = {"missing": None, "empty": b"", "no database": b"this is a text of some length " * 100}


@pytest.fixture
def run(database, tmp_path):
    """Runs `backup` into `backup.db`, or with the arguments given."""

    def run(*arguments, url=f"sqlite:///{database}"):
        arguments = arguments or (str(tmp_path / "backup.db"),)
        return cli.run("backup", *arguments, "--database-url", url)

    return run


@pytest.fixture
def target(tmp_path):
    """The path of the backup."""
    return tmp_path / "backup.db"


@pytest.fixture
def umask_0():
    """A umask under which new files are readable and writable by everybody unless their mode says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def rotate(url):
    """Change two tables in one transaction, as a running provider does."""
    with Database(url) as store:
        return key_admin(store, lambda: NOW).rotate("admin-cli", HERE)


def query(path, statement):
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def content(path):
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_backup(run, database, target, umask_0):
    """The backup is complete and has mode 0600; no other file is left, and one line reports it."""
    result = run()

    assert (result.exit_code, result.stderr) == (0, "")
    (step,) = query(database, "SELECT version_num FROM alembic_version")[0]
    assert result.stdout == f"{target}: {target.stat().st_size} bytes, schema step {step}, checked\n"
    assert content(target) == content(database)
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(it.name for it in target.parent.iterdir()) == ["backup.db", "provider.db"]


def test_no_byte_is_readable_by_others(run, target, umask_0, monkeypatch):
    """The file belongs to its owner alone before any data is written to it."""
    seen = []
    copy = copying._copy
    monkeypatch.setattr(copying, "_copy", lambda source, path: seen.append(path.stat()) or copy(source, path))

    assert run().exit_code == 0

    assert [(it.st_mode & 0o777, it.st_size) for it in seen] == [(0o600, 0)]


def test_it_is_of_one_moment_while_others_write(run, database, target, monkeypatch):
    """Writers do not wait for the copy, and the copy has no part of what they write meanwhile."""
    copy = copying._copy
    url = f"sqlite:///{database}"
    rotate(url)
    before = content(database)

    def copy_while_served(source, path):
        rotate(url)
        copy(source, path)
        rotate(url)

    monkeypatch.setattr(copying, "_copy", copy_while_served)

    assert run().exit_code == 0

    assert content(target) == before
    assert query(database, "SELECT count(*) FROM signing_keys") == [(5,)]


def test_it_ends_beside_a_writer_that_never_rests(run, database, target, monkeypatch):
    """The copy does not restart when another process writes between its steps of one page each."""
    steps = []

    class Source:
        def __init__(self, connection):
            self.connection = connection

        def backup(self, copy, *, pages, progress):
            def write(*_):
                steps.append(1)
                assert len(steps) < 1000
                query(database, "UPDATE facts SET name = name")

            self.connection.backup(copy, pages=1, progress=write)

    copy = copying._copy
    monkeypatch.setattr(copying, "_copy", lambda source, path: copy(Source(source), path))

    assert run().exit_code == 0

    assert query(target, "PRAGMA page_count") == [(len(steps),)]


def test_it_works_on_any_version_of_the_schema(run, database, target):
    """A backup works on an older and a newer schema: it is needed most before an upgrade or a rollback."""
    for step in ("001", "999"):
        query(database, f"UPDATE alembic_version SET version_num = '{step}'")

        result = run()

        assert (result.exit_code, result.stderr) == (0, "")
        assert f"schema step {step}," in result.stdout
        target.unlink()


@pytest.mark.parametrize("make", ["file", "folder", "link", "dangling link", "the database"])
def test_what_exists_is_not_touched(run, database, target, make):
    """A backup never overwrites an existing file and never follows a link."""
    elsewhere = target.with_name("elsewhere")
    if make == "file":
        target.write_text("x")
    if make == "folder":
        target.mkdir()
    if "link" in make:
        target.symlink_to(elsewhere)
    if make == "link":
        elsewhere.write_text("x")
    before = {it.name: it.read_bytes() for it in target.parent.iterdir() if it.is_file()}
    path = database if make == "the database" else target

    assert_fails(run(str(path)), f"{path} already exists")

    assert {it.name: it.read_bytes() for it in target.parent.iterdir() if it.is_file()} == before


def test_a_file_that_cannot_be_made(run, tmp_path):
    """One line says why the file cannot be created."""
    assert_fails(run(str(tmp_path / "no" / "backup.db")), "cannot be created: No such file or directory")


@pytest.mark.parametrize("content", UNPREPARED.values(), ids=UNPREPARED.keys())
def test_a_database_that_is_not_prepared(run, tmp_path, target, content):
    """There is nothing to back up; neither a database nor a backup is created."""
    path = tmp_path / "other.db"
    if content is not None:
        path.write_bytes(content)

    result = run(url=f"sqlite:///{path}")

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert (path.read_bytes() if path.exists() else None) == content
    assert not target.exists()


def test_postgresql(run, target):
    """For PostgreSQL the command points to `pg_dump` without connecting."""
    assert_fails(run(url="postgresql+psycopg://idp@127.0.0.1:1/idp"), "`pg_dump`")
    assert not target.exists()


def test_a_damaged_copy_is_no_backup(run, database, target):
    """A copy that fails the integrity check is removed."""
    size = query(database, "PRAGMA page_size")[0][0]
    (root,) = query(database, "SELECT rootpage FROM sqlite_master WHERE name = 'audit_log'")[0]
    with database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)

    assert_fails(run(), "and was deleted; check the database itself")

    assert list(target.parent.glob("backup*")) == []


@pytest.fixture
def _interruptible():
    """Handle SIGINT, which a shell makes its background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["_copy", "_checked"])
def test_an_interrupted_backup_leaves_nothing(run, target, monkeypatch, number, moment):
    """An interrupted backup leaves no partial file."""
    done = getattr(copying, moment)

    def interrupted(*arguments):
        done(*arguments)
        signal.raise_signal(number)  # a signal sent with `kill` may arrive in another thread

    monkeypatch.setattr(copying, moment, interrupted)
    handler = signal.getsignal(signal.SIGTERM)

    result = run()

    assert result.exit_code == 128 + number
    assert list(target.parent.glob("backup*")) == []
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_full_disk(run, target, monkeypatch):
    """A failed copy is reported in one line and leaves no file."""

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(copying, "_copy", full)

    assert_fails(run(), "database or disk is full")
    assert not target.exists()
