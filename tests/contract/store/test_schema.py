"""The migrations of the schema, on both engines."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import psycopg
import pytest
from sqlalchemy import create_engine, text

from kit.processes import output_of, wait_until
from sentryagent_idp.domain.agent import RegisteredBy
from sentryagent_idp.domain.audit import AuditFilter
from sentryagent_idp.domain.conditions import Conditions
from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.domain.trust_policy import PolicyFilter
from sentryagent_idp.errors import DatabaseUnavailable
from sentryagent_idp.store import schema
from sentryagent_idp.store.columns import METADATA
from sentryagent_idp.store.database import Database
from sentryagent_idp.store.url import DatabaseUrlError

STEPS = schema._steps()


@pytest.fixture
def run_alembic():
    """Run one of Alembic's own commands on a database."""

    def run(url, command, *arguments):
        engine = create_engine(url)
        with engine.begin() as connection:
            command(schema.alembic_config(connection), *arguments)
        engine.dispose()

    return run


def tables(url):
    """The names of all tables."""
    engine = create_engine(url)
    with engine.connect() as connection:
        names = connection.dialect.get_table_names(connection)
    engine.dispose()
    return set(names) - {"sqlite_sequence"}


def test_migrating_applies_each_step_once(empty_url):
    """A new database gets every step in order, a migrated one none."""
    assert "022" in STEPS
    assert not schema.is_prepared(empty_url)
    assert schema.migrate(empty_url) == STEPS
    assert schema.migrate(empty_url) == []
    assert schema.is_prepared(empty_url)
    assert tables(empty_url) == {"alembic_version", *METADATA.tables}


def test_the_tables_are_what_the_code_takes_them_for(url):
    """Alembic finds no difference between the migrated schema and the tables in the code."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_policies_have_the_columns_that_are_promised(url):
    """Step 022 creates `oidc_trust_policies` with at least these columns."""
    engine = create_engine(url)
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT provider, repository, branch, agent_id FROM oidc_trust_policies")
        )
        assert row.all() == []
    engine.dispose()


def test_going_back_keeps_the_other_tables(url, run_alembic, make_agent, make_policy, make_record, now):
    """A downgrade to before step 022 drops only the tables since then; upgrading again works with data in the others."""
    from alembic import command

    agent, record = make_agent(), make_record()
    key = StoredKey("kid", "ES256", b"pem", KeyStatus.ACTIVE, now)
    policy = make_policy(agent_id=agent.agent_id, conditions=Conditions(branch="main"))
    with Database(url) as database, database.write() as tx:
        tx.agents.add(agent)
        tx.audit.append(record)
        tx.signing_keys.add(key)
        tx.policies.add(policy)
        tx.policies.add(make_policy(derived_from=policy.id))
    run_alembic(url, command.downgrade, "021")
    try:
        assert "oidc_trust_policies" not in tables(url)
        assert not schema.is_prepared(url)
    finally:
        assert schema.migrate(url) == STEPS[STEPS.index("022") :]
    with Database(url) as database, database.read() as tx:
        assert tx.agents.get(agent.agent_id) == agent
        assert tx.audit.page(AuditFilter(), page=1, limit=20).data == [record]
        assert tx.signing_keys.all() == [key]
        assert tx.policies.page(PolicyFilter(), page=1, limit=20).total == 0


@pytest.mark.parametrize(
    ("step", "condition"), [("024", {"ref_protected": True}), ("025", {"properties": {"team": ("core",)}})]
)
def test_no_policy_outlives_its_condition(url, run_alembic, make_policy, step, condition):
    """A downgrade that drops a condition deletes the policies that use it: without it they would allow more."""
    from alembic import command

    kept = make_policy(conditions=Conditions(branch="main"))
    with Database(url) as database, database.write() as tx:
        tx.policies.add(kept)
        tx.policies.add(make_policy(conditions=Conditions(branch="main", **condition)))
    run_alembic(url, command.downgrade, step)
    schema.migrate(url)
    with Database(url) as database, database.read() as tx:
        assert tx.policies.page(PolicyFilter(), page=1, limit=20).data == [kept]


GHES = "https://ghes.example.com/_services/token"


@pytest.mark.parametrize(
    ("issuers", "registered_by", "known"),
    [
        ([GHES], RegisteredBy("github", "Octo/Repo", "1"), GHES),
        ([GHES, "https://other.example"], RegisteredBy("github", "Octo/Repo", "1"), None),
        ([], RegisteredBy("github", "Octo/Repo", "1"), None),
    ],
)
def test_earlier_agents_get_the_issuer_of_their_policies(
    url, run_alembic, make_agent, make_policy, issuers, registered_by, known
):
    """An agent registered by an earlier version gets the issuer of its repository's policies, if there is only one."""
    from alembic import command

    agent, by_admin = make_agent(registered_by=registered_by), make_agent()
    with Database(url) as database, database.write() as tx:
        for issuer in issuers:
            tx.policies.add(make_policy(issuer=issuer, repository="octo/repo"))
        tx.policies.add(make_policy(issuer="https://else.example", repository="octo/else"))
        tx.agents.add(agent)
        tx.agents.add(by_admin)
    run_alembic(url, command.downgrade, "027")
    schema.migrate(url)
    with Database(url) as database, database.read() as tx:
        assert tx.agents.get(agent.agent_id).registered_by.issuer == known
        assert tx.agents.get(by_admin.agent_id) == by_admin


def test_every_step_can_be_taken_back(empty_url, run_alembic):
    """A full downgrade and a full upgrade both succeed."""
    from alembic import command

    schema.migrate(empty_url)
    for _ in STEPS:
        run_alembic(empty_url, command.downgrade, "-1")
    assert tables(empty_url) == {"alembic_version"}
    assert schema.migrate(empty_url) == STEPS


def test_a_newer_database_is_refused(empty_url):
    """An older version reports that it is too old, and changes nothing."""
    schema.migrate(empty_url)
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '900'"))
    engine.dispose()
    with pytest.raises(schema.SchemaError, match=rf"step 900.*supports steps up to {STEPS[-1]}"):
        schema.migrate(empty_url)
    with pytest.raises(schema.SchemaError, match=rf"step 900.*supports steps up to {STEPS[-1]}"):
        schema.is_prepared(empty_url)


def test_a_step_that_fails_leaves_nothing(empty_url):
    """All steps run in one transaction: if one fails, the database is unchanged."""
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE oidc_trust_policies (id TEXT)"))
    engine.dispose()
    with pytest.raises(Exception, match="already exists"):
        schema.migrate(empty_url)
    assert tables(empty_url) == {"oidc_trust_policies"}


@pytest.fixture
def earlier(postgres_url, run_alembic):
    """The URL of a database at step 024, and a connection to it without autocommit."""
    from alembic import command

    schema.migrate(postgres_url)
    run_alembic(postgres_url, command.downgrade, "024")
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        yield postgres_url, connection


@pytest.mark.postgres
def test_requests_do_not_queue_behind_a_migration(earlier):
    """While a backup reads the tables, the migration retries, and requests are served in between."""
    url, backup = earlier
    backup.execute("LOCK TABLE oidc_trust_policies IN ACCESS SHARE MODE")
    answers = []

    def backup_ends(_seconds):
        with psycopg.connect(url.replace("+psycopg", "")) as request:
            request.execute("SET lock_timeout = '1s'")
            answers.append(request.execute("SELECT count(*) FROM oidc_trust_policies").fetchone())
        if len(answers) == 2:
            backup.rollback()

    assert schema.migrate(url, wait=backup_ends) == STEPS[STEPS.index("025") :]
    assert answers == [(0,), (0,)]


@pytest.mark.postgres
def test_no_request_is_the_victim_of_a_migration(earlier):
    """A request holds `agents` and needs `oidc_trust_policies`, which the migration holds while it waits for `agents`."""
    url, request = earlier
    tried_again = Event()
    request.execute("LOCK TABLE agents IN ROW EXCLUSIVE MODE")
    with ThreadPoolExecutor(1) as pool:
        migrated = pool.submit(schema.migrate, url, wait=lambda _: tried_again.set())
        wait_until(lambda: _waits_for(url, "agents"), "the step that waits")
        assert request.execute("SELECT count(*) FROM oidc_trust_policies").fetchone() == (0,)
        assert tried_again.wait(30)
        request.commit()
        assert migrated.result(30) == STEPS[STEPS.index("025") :]


def _waits_for(url, table):
    """Whether a transaction is waiting for a table."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = %s::regclass", [table]
        )
        return found.fetchone()


@pytest.mark.postgres
def test_a_migration_gives_up_when_the_tables_are_held(earlier, monkeypatch):
    """The migration ends with one line that says what to do, and changes nothing."""
    monkeypatch.setattr(schema, "_TRIES", 2)
    url, backup = earlier
    backup.execute("LOCK TABLE agents IN ACCESS SHARE MODE")
    pauses = []
    with pytest.raises(schema.SchemaError, match=r"is locking the tables.*try again when it has finished"):
        schema.migrate(url, wait=pauses.append)
    assert len(pauses) == 1
    backup.rollback()
    assert backup.execute("SELECT version_num FROM alembic_version").fetchone() == ("024",)


def test_a_new_file_is_the_owners_alone(sqlite_url):
    """Only the owner can read a new database file: it may hold unencrypted signing keys."""
    schema.migrate(sqlite_url)
    assert Path(sqlite_url.removeprefix("sqlite:///")).stat().st_mode & 0o777 == 0o600


def test_asking_makes_no_database(tmp_path):
    """Checking a database does not create it: a missing file stays missing, an empty one empty."""
    empty = tmp_path / "empty.db"
    empty.touch()
    assert not schema.is_prepared(f"sqlite:///{tmp_path}/missing.db")
    assert not schema.is_prepared(f"sqlite:///{empty}")
    assert [(it.name, it.stat().st_size) for it in tmp_path.iterdir()] == [("empty.db", 0)]


def test_a_file_in_no_folder_is_a_wrong_url(tmp_path):
    """A missing folder is not created: a misspelt path would become a second, empty provider."""
    url = f"sqlite:///{tmp_path}/no/idp.db"
    with pytest.raises(DatabaseUrlError, match=r"no of the SQLite database does not exist; create it first"):
        schema.migrate(url)
    assert not schema.is_prepared(url)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_file_can_have(tmp_path):
    """The operator gets the operating system's message, in one line."""
    url = f"sqlite:///{tmp_path}/{'x' * 300}"
    for attempt in (schema.is_prepared, schema.migrate):
        with pytest.raises(DatabaseUrlError, match="cannot be used: File name too long"):
            attempt(url)


@pytest.mark.postgres
def test_an_unknown_database_is_told_to_the_operator(postgres_cluster):
    """A server that refuses the connection is an outage, reported in the server's own words."""
    for attempt in (schema.is_prepared, schema.migrate):
        with pytest.raises(DatabaseUnavailable, match='database "nowhere" does not exist'):
            attempt(postgres_cluster.url("nowhere"))


def test_the_command_line_starts_without_alembic():
    """Checking whether a database is prepared imports neither Alembic nor psycopg."""
    loaded = (
        "import sentryagent_idp.store.database, sys; print(sorted({'alembic', 'psycopg'} & set(sys.modules)))"
    )
    assert output_of(sys.executable, "-c", loaded) == "[]\n"


def test_a_files_name_may_have_any_character(tmp_path):
    """Characters that are special in a SQLite URI are literal in a file name."""
    url = f"sqlite:///{tmp_path}/50%25 %3Fmode=ro#1.db"
    schema.migrate(url)
    assert schema.is_prepared(url)
    assert [it.name for it in tmp_path.iterdir()] == ["50% ?mode=ro#1.db"]
