"""One suite for both engines: `url` and `database` are given once on SQLite and once on PostgreSQL."""

from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import text

from kit import records
from sentryagent_idp.store import schema
from sentryagent_idp.store.audit import AuditTable
from sentryagent_idp.store.columns import METADATA
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.sealing import AuditChain, Sealer

NOW = datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def now():
    """A moment with microseconds."""
    return NOW


@pytest.fixture
def sqlite_url(tmp_path):
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'idp.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request):
    """The URL of a database without tables."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="session")
def _migrated_postgres(postgres_cluster):
    postgres_cluster.execute("CREATE DATABASE migrated")
    schema.migrate(postgres_cluster.url("migrated"))


@pytest.fixture
def migrated_postgres_url(postgres_cluster, _migrated_postgres):
    """The URL of a PostgreSQL database with all tables, all of them empty.

    One database serves all tests, emptied before each: making one takes ten times as long.
    """
    tables = reversed(METADATA.sorted_tables)
    postgres_cluster.execute(";".join(f"DELETE FROM {table.name}" for table in tables), database="migrated")
    return postgres_cluster.url("migrated")


@pytest.fixture
def migrated_sqlite_url(sqlite_url):
    """The URL of a SQLite database with all tables, all of them empty."""
    schema.migrate(sqlite_url)
    return sqlite_url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request):
    """The URL of a database with all tables."""
    return request.getfixturevalue(f"migrated_{request.param}_url")


@pytest.fixture
def database(url):
    """One replica of the provider."""
    with Database(url) as database:
        yield database


@pytest.fixture
def other_database(url):
    """Another replica on the same database."""
    with Database(url) as database:
        yield database


@pytest.fixture
def make_agent():
    """Makes agents of different addresses."""
    return partial(records.agent, NOW)


@pytest.fixture
def make_policy():
    """Makes bootstrap policies of `octo/repo`."""
    return partial(records.policy, NOW)


@pytest.fixture
def make_service():
    """Makes services of different identifiers."""
    return partial(records.service, NOW)


@pytest.fixture
def make_credential():
    """Makes credentials."""
    return partial(records.credential, NOW)


@pytest.fixture
def make_record():
    """Makes audit records."""
    return partial(records.audit_record, NOW)


@pytest.fixture
def clock(now):
    """The moment of `now`."""
    return lambda: now


@pytest.fixture
def write(database, make_record):
    """Writes records with these numbers as event ids, each in a transaction of its own, and leaves them unsealed.

    On SQLite an earlier version left them so.
    """

    def write(*numbers, **members):
        for number in numbers:
            with database.write() as tx:
                AuditTable(tx.audit._connection).append(make_record(event_id=UUID(int=number), **members))

    return write


@pytest.fixture
def seal(database, clock):
    """Seals all that waits."""
    return Sealer(database, clock).run


@pytest.fixture
def verify(database):
    """Checks the chain."""
    return AuditChain(database).verify


@pytest.fixture
def sql(database):
    """Changes the database as a person with its password could."""

    def run(statement, **parameters):
        with database.write() as tx:
            tx.settings._connection.execute(text(statement), parameters)

    return run
