"""One suite for both engines: `url` and `database` exist once for SQLite and once for PostgreSQL."""

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
    """A time with microseconds."""
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

    All tests share one database, which is emptied before each test: creating one takes ten times as long.
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
    """Make agents with different email addresses."""
    return partial(records.agent, NOW)


@pytest.fixture
def make_policy():
    """Make bootstrap policies for `octo/repo`."""
    return partial(records.policy, NOW)


@pytest.fixture
def make_service():
    """Make services with different identifiers."""
    return partial(records.service, NOW)


@pytest.fixture
def make_credential():
    """Make credentials."""
    return partial(records.credential, NOW)


@pytest.fixture
def make_record():
    """Make audit records."""
    return partial(records.audit_record, NOW)


@pytest.fixture
def clock(now):
    """A clock that always shows `now`."""
    return lambda: now


@pytest.fixture
def write(database, make_record):
    """Write unsealed records with these numbers as event ids, each in its own transaction.

    Earlier versions left records unsealed on SQLite.
    """

    def write(*numbers, **members):
        for number in numbers:
            with database.write() as tx:
                AuditTable(tx.audit._connection).append(make_record(event_id=UUID(int=number), **members))

    return write


@pytest.fixture
def seal(database, clock):
    """Seal all unsealed records."""
    return Sealer(database, clock).run


@pytest.fixture
def verify(database):
    """Verify the chain."""
    return AuditChain(database).verify


@pytest.fixture
def sql(database):
    """Change the database as a person with its password could."""

    def run(statement, **parameters):
        with database.write() as tx:
            tx.settings._connection.execute(text(statement), parameters)

    return run
