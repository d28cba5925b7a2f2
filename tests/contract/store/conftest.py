"""One suite for both engines: `url` and `database` are given once on SQLite and once on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier
from uuid import uuid4

import pytest

from sentryagent_idp.domain.agent import Agent, AgentStatus, Credential
from sentryagent_idp.domain.audit import Action, AuditRecord, Outcome
from sentryagent_idp.domain.trust_policy import TrustPolicy
from sentryagent_idp.store import schema
from sentryagent_idp.store.columns import METADATA
from sentryagent_idp.store.database import Database

ISSUER = "https://token.actions.githubusercontent.com"
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

    def make(**members):
        agent_id = uuid4()
        return Agent(
            **{
                "agent_id": agent_id,
                "email": f"{agent_id}@example.com",
                "description": None,
                "agent_type": "custom",
                "version": "1.0.0",
                "capabilities": ("ci:run",),
                "owner": "octo",
                "deployment_env": "production",
                "status": AgentStatus.ACTIVE,
                "registered_by": None,
                "created_at": NOW,
                "updated_at": NOW,
            }
            | members
        )

    return make


@pytest.fixture
def make_policy():
    """Makes bootstrap policies of `octo/repo`."""

    def make(**members):
        return TrustPolicy(
            **{
                "id": uuid4(),
                "issuer": ISSUER,
                "repository": "Octo/Repo",
                "created_at": NOW,
                "updated_at": NOW,
            }
            | members
        )

    return make


@pytest.fixture
def make_credential():
    """Makes credentials."""

    def make(agent_id, **members):
        return Credential(
            **{
                "credential_id": uuid4(),
                "agent_id": agent_id,
                "secret_hash": "$argon2id$…",
                "created_at": NOW,
                "expires_at": None,
                "revoked_at": None,
            }
            | members
        )

    return make


@pytest.fixture
def make_record():
    """Makes audit records."""

    def make(**members):
        return AuditRecord(
            **{
                "event_id": uuid4(),
                "timestamp": NOW,
                "action": Action.TOKEN_ISSUED,
                "outcome": Outcome.SUCCESS,
                "actor": "admin:root",
                "request_id": str(uuid4()),
                "address": "192.0.2.7",
            }
            | members
        )

    return make


@pytest.fixture
def at_once():
    """Calls functions in threads that all begin at the same moment; returns results and exceptions."""

    def run(*calls):
        barrier = Barrier(len(calls))

        def started(call):
            barrier.wait(timeout=10)
            try:
                return call()
            except Exception as error:  # noqa: BLE001 - the test looks at what each call ended with
                return error

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(started, calls))

    return run
