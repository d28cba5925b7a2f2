"""An outage is reported in time, and recovery needs no restart."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from kit.processes import PATIENCE_SECONDS
from kit.records import keep
from sentryagent_idp.domain.audit import AuditFilter
from sentryagent_idp.errors import DatabaseUnavailable
from sentryagent_idp.ports import WriterBusy
from sentryagent_idp.store import postgresql, schema, sqlite
from sentryagent_idp.store.database import Database

ISSUER = "https://token.actions.githubusercontent.com"


def path_of(url):
    """The file of a SQLite URL."""
    return Path(url.removeprefix("sqlite:///"))


def read_issuer(database):
    """Do the smallest read that a request needs."""
    with database.read() as tx:
        return tx.settings.get("issuer")


def write_issuer(database, value="new"):
    """Do the smallest write that a request needs."""
    with database.write() as tx:
        tx.settings.put("issuer", value)


def test_the_bounds_add_up_to_less_than_ten_seconds():
    """Waiting for a connection, finding it dead and opening another takes less than the 10 s of docs/operations.md."""
    assert postgresql._POOL_WAIT_SECONDS + postgresql.ANSWER_SECONDS + postgresql._CONNECT_SECONDS < 10
    assert 2 * sqlite.BUSY_SECONDS < 10


@pytest.mark.postgres
def test_a_stopped_server_is_an_outage_until_it_is_back(postgres_cluster, migrated_postgres_url):
    """During an outage every transaction raises `DatabaseUnavailable` with its cause; the first one after it succeeds."""
    with Database(migrated_postgres_url) as database:
        write_issuer(database, "kept")
        read_issuer(database)
        postgres_cluster.stop()
        try:
            for attempt in (read_issuer, write_issuer, Database.is_prepared):
                with pytest.raises(DatabaseUnavailable) as raised:
                    attempt(database)
                assert raised.value.retry_after > 0
                assert "connection" in str(raised.value.__cause__)
                assert "127.0.0.1" not in raised.value.message
            with pytest.raises(DatabaseUnavailable, match=r"cannot be used \(.*refused"):
                schema.migrate(migrated_postgres_url)
        finally:
            postgres_cluster.start()
        assert read_issuer(database) == "kept"
        write_issuer(database)


@pytest.mark.postgres
def test_a_restart_between_two_requests_is_not_noticed(postgres_cluster, migrated_postgres_url):
    """A connection that broke while idle is replaced before it is used."""
    with Database(migrated_postgres_url) as database:
        write_issuer(database, "kept")
        postgres_cluster.stop()
        postgres_cluster.start()
        assert read_issuer(database) == "kept"


@pytest.mark.postgres
def test_a_server_that_goes_away_in_a_transaction_keeps_none_of_it(postgres_cluster, migrated_postgres_url):
    """A connection that breaks between two statements is an outage, and nothing of the transaction is kept."""
    with Database(migrated_postgres_url) as database:

        def broken():
            with database.write() as tx:
                tx.settings.put("issuer", "lost")
                postgres_cluster.stop()
                postgres_cluster.start()
                tx.settings.put("other", "lost")

        with pytest.raises(DatabaseUnavailable):
            broken()
        assert read_issuer(database) is None


@pytest.fixture
def freeze():
    """Freeze the server process behind a transaction's connection; it thaws after the test."""
    frozen = []

    def freeze(tx):
        process = tx.settings._connection.connection.driver_connection.info.backend_pid
        os.kill(process, signal.SIGSTOP)
        frozen.append(process)

    yield freeze
    for process in frozen:
        os.kill(process, signal.SIGCONT)


@pytest.fixture
def given_up(monkeypatch):
    """The connections whose server did not answer within the time limit, which is 0.2 s here."""
    monkeypatch.setattr(postgresql, "ANSWER_SECONDS", 0.2)
    wait, given_up = psycopg.Connection.wait, []

    def noted_wait(self, *arguments, **options):
        try:
            return wait(self, *arguments, **options)
        except psycopg.OperationalError:
            given_up.append(self)
            raise

    monkeypatch.setattr(psycopg.Connection, "wait", noted_wait)
    return given_up


@pytest.mark.postgres
def test_a_server_that_freezes_in_a_transaction_is_an_outage(migrated_postgres_url, freeze, given_up):
    """A server that keeps the connection open but never answers is waited for once; the next transaction reconnects."""

    def freeze_and_read(database):
        with database.read() as tx:
            freeze(tx)
            tx.settings.get("issuer")

    with Database(migrated_postgres_url) as database:
        with pytest.raises(DatabaseUnavailable):
            freeze_and_read(database)
        assert len(given_up) == 1
        assert read_issuer(database) is None


@pytest.mark.postgres
def test_a_connection_that_froze_in_the_pool_is_replaced(migrated_postgres_url, freeze, given_up):
    """A connection whose server froze between two requests costs one bounded wait, and no request fails."""
    with Database(migrated_postgres_url) as database:
        with database.read() as tx:
            freeze(tx)
        assert read_issuer(database) is None
        assert len(given_up) == 1


@pytest.mark.postgres
def test_a_row_that_stays_locked_is_an_outage(
    postgres_cluster, migrated_postgres_url, make_agent, monkeypatch
):
    """A lock that is not released in time ends as `DatabaseUnavailable`, and the connection stays usable."""
    monkeypatch.setattr(postgresql, "_SERVER_TIMEOUTS", "-c lock_timeout=50")
    agent = make_agent()
    with Database(migrated_postgres_url) as database:
        keep(database, agent)
        with database.write() as holder:
            holder.agents.get(agent.agent_id)
            with pytest.raises(DatabaseUnavailable), database.write() as tx:
                tx.agents.get(agent.agent_id)
        with database.write() as tx:
            assert tx.agents.get(agent.agent_id) == agent


@pytest.mark.postgres
def test_a_database_in_another_encoding_holds_text(postgres_cluster, make_record):
    """Text is read back as text even in SQL_ASCII, where PostgreSQL does not know the encoding."""
    postgres_cluster.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    url = postgres_cluster.url("ascii")
    schema.migrate(url)
    record = make_record(actor="Grüße", details={"sub": "ü"})
    with Database(url) as database:
        keep(database, record)
        with database.read() as tx:
            assert tx.audit.page(AuditFilter(), page=1, limit=1).data == [record]


@pytest.mark.postgres
def test_the_servers_own_bounds_are_set(migrated_postgres_url):
    """Each connection gets the server-side timeouts, in addition to the options of the URL."""
    with Database(f"{migrated_postgres_url}?options=-c%20work_mem%3D5MB") as database, database.read() as tx:
        show = tx.settings._connection.exec_driver_sql
        values = [show(f"SHOW {name}").scalar() for name in ("statement_timeout", "lock_timeout", "work_mem")]
        assert values == ["3500ms", "3s", "5MB"]
        assert show("SHOW transaction_isolation").scalar() == "read committed"


@pytest.mark.postgres
def test_the_pool_is_bounded(migrated_postgres_url, monkeypatch):
    """When every connection is in use, the next transaction is refused in time, and succeeds once one is free."""
    monkeypatch.setattr(postgresql, "_POOL_SIZE", 1)
    monkeypatch.setattr(postgresql, "_POOL_WAIT_SECONDS", 0.05)
    with Database(migrated_postgres_url) as database:
        with database.read(), pytest.raises(DatabaseUnavailable):
            read_issuer(database)
        assert read_issuer(database) is None


def test_a_sqlite_file_that_stays_locked_is_an_outage(migrated_sqlite_url, monkeypatch):
    """Waiting for another program's lock is bounded; reads continue, and writes succeed once it is released."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(path_of(migrated_sqlite_url), isolation_level=None)
    with Database(migrated_sqlite_url) as database:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable) as raised:
            write_issuer(database)
        assert "locked" in str(raised.value.__cause__)
        assert read_issuer(database) is None
        other.execute("ROLLBACK")
        write_issuer(database)
        assert read_issuer(database) == "new"
    other.close()


def test_threads_wait_for_the_writing_connection_in_bounds(migrated_sqlite_url, monkeypatch):
    """A thread that does not get the writing connection in time is refused."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    refusals = []

    def write(database):
        try:
            write_issuer(database)
        except DatabaseUnavailable as refusal:
            refusals.append(refusal)

    with Database(migrated_sqlite_url) as database:
        with database.write():
            thread = Thread(target=write, args=(database,))
            thread.start()
            thread.join(PATIENCE_SECONDS)
        assert len(refusals) == 1
        write_issuer(database)


def test_a_full_disk_is_an_outage(migrated_sqlite_url, make_record, monkeypatch):
    """A write that does not fit is not kept, and later writes that fit succeed."""
    with Database(migrated_sqlite_url) as database:
        with database.write() as tx:
            limit = tx.settings._connection.exec_driver_sql("PRAGMA max_page_count=1").scalar()
        with pytest.raises(DatabaseUnavailable) as raised:
            write_issuer(database, "x" * 4096 * limit)
        assert "full" in str(raised.value.__cause__)
        assert read_issuer(database) is None
        with database.write() as tx:
            tx.settings._connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        write_issuer(database)


def test_a_missing_file_is_an_outage_and_is_not_made(sqlite_url):
    """A transaction never creates a database."""
    with Database(sqlite_url) as database:
        for attempt in (read_issuer, write_issuer, Database.is_prepared):
            with pytest.raises(DatabaseUnavailable):
                attempt(database)
        assert list(path_of(sqlite_url).parent.iterdir()) == []
        schema.migrate(sqlite_url)
        assert read_issuer(database) is None


def write_issuer_at_once(database, value="new"):
    """Write as an exchange does."""
    with database.write_at_once() as tx:
        tx.settings.put("issuer", value)


TRANSACTIONS = (read_issuer, write_issuer, write_issuer_at_once)


def move(source, target):
    """Move a SQLite database with its WAL files to another path."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{source}{suffix}").rename(f"{target}{suffix}")


def test_a_file_that_is_removed_in_service_is_an_outage(migrated_sqlite_url, tmp_path):
    """Nothing is written to an unlinked file, where it would be lost; once the file is back, it is used again."""
    path = path_of(migrated_sqlite_url)
    with Database(migrated_sqlite_url) as database:
        for attempt in TRANSACTIONS:
            attempt(database)
        move(path, tmp_path / "away.db")
        for attempt in TRANSACTIONS:
            with pytest.raises(DatabaseUnavailable):
                attempt(database)
        move(tmp_path / "away.db", path)
        assert read_issuer(database) == "new"
        for attempt in TRANSACTIONS:
            attempt(database)


def test_a_file_that_is_replaced_in_service_is_the_database(migrated_sqlite_url, tmp_path):
    """After at most one refusal, each transaction uses the new file at the path."""
    path, copy = path_of(migrated_sqlite_url), tmp_path / "copy.db"
    with Database(migrated_sqlite_url) as database:
        for attempt in TRANSACTIONS:
            attempt(database)
        with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        source.close()
        target.close()
        move(path, tmp_path / "old.db")
        copy.rename(path)

        write_issuer(database, "first")
        with pytest.raises(DatabaseUnavailable):
            write_issuer_at_once(database, "lost")
        assert read_issuer(database) == "first"
        write_issuer_at_once(database, "second")
        assert read_issuer(database) == "second"
    with Database(f"sqlite:///{tmp_path}/old.db") as old:
        assert read_issuer(old) == "new"


RECOVERS = """
import fcntl, os, sys
shared = os.open(sys.argv[1], os.O_RDWR)
for lock in (120, 122):  # WAL_WRITE_LOCK and WAL_RECOVER_LOCK of SQLite's shared memory
    fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, lock)
os.pwrite(shared, bytes(96), 0)
print("recovering", flush=True)
sys.stdin.read()
"""


def test_a_log_that_is_being_recovered_is_waited_for(migrated_sqlite_url):
    """While another process recovers the WAL after a crash, the database is busy, not unavailable."""
    shared = f"{path_of(migrated_sqlite_url)}-shm"
    with Database(migrated_sqlite_url) as database:
        write_issuer_at_once(database)
        command = [sys.executable, "-c", RECOVERS, shared]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as recovering:
            assert recovering.stdout.readline() == b"recovering\n"
            with pytest.raises(WriterBusy):
                write_issuer_at_once(database)
            recovering.stdin.close()
        write_issuer_at_once(database, "recovered")
        assert read_issuer(database) == "recovered"


def test_a_file_that_is_no_database_is_an_outage(sqlite_url):
    """A damaged file is refused with an error for the operator, and is not changed."""
    path_of(sqlite_url).write_bytes(b"no database" * 1000)
    with Database(sqlite_url) as database, pytest.raises(DatabaseUnavailable, match="is not responding"):
        read_issuer(database)
    for attempt in (schema.is_prepared, schema.migrate):
        with pytest.raises(DatabaseUnavailable, match=r"cannot be used \(file is not a database\)"):
            attempt(sqlite_url)
    assert path_of(sqlite_url).read_bytes() == b"no database" * 1000


def test_sqlite_is_durable(migrated_sqlite_url):
    """A commit is on disk before it returns, and foreign keys are enforced."""
    with Database(migrated_sqlite_url) as database, database.write() as tx:
        value = tx.settings._connection.exec_driver_sql
        pragmas = [
            value(f"PRAGMA {name}").scalar() for name in ("synchronous", "journal_mode", "foreign_keys")
        ]
        assert pragmas == [2, "wal", 1]


def test_a_connection_that_cannot_be_set_up_is_closed(tmp_path, monkeypatch):
    """Repeated attempts must not use up the process's file descriptors."""
    path = tmp_path / "idp.db"
    path.write_bytes(b"no database " * 100)
    made, connect = [], sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **options: made.append(connect(*args, **options)) or made[-1]
    )

    with pytest.raises(DatabaseUnavailable):
        schema.migrate(f"sqlite:///{path}")

    (connection,) = made
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
