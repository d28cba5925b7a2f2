"""`copy-database` moves a provider that has outgrown SQLite to PostgreSQL without losing anything."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from click.testing import CliRunner

from sentryagent_idp.cli.main import main
from sentryagent_idp.domain.audit import Action
from sentryagent_idp.domain.service import ServiceGrant
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.store import copying, schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.key_ring import KeyRing, ensure_signing_key
from sentryagent_idp.use_cases.sealing import AuditChain, Sealer


@pytest.fixture
def source(migrated_sqlite_url, now, make_agent, make_policy, make_service, make_credential, make_record):
    """A SQLite database with rows in every table; the derived policy precedes its origin in the file."""
    with Database(migrated_sqlite_url) as store:
        ensure_signing_key(store, "ES256", (), lambda: now)
        agent, service = make_agent(), make_service()
        grants = (ServiceGrant(service.identifier, ("deploy",)),)
        origin = make_policy(trust_registered=True, grants=grants)
        derived = make_policy(agent_id=agent.agent_id, derived_from=origin.id, repository="octo/other")
        with store.write() as tx:
            tx.settings.put("provider", {"public_url": "https://idp.example.com", "ünïcode": [1, None]})
            tx.agents.add(agent)
            tx.services.add(service)
            tx.policies.add(origin)
            tx.policies.add(derived)
            tx.credentials.add(make_credential(agent.agent_id))
            assert tx.used_tokens.claim(UsedToken("issuer", "used", now + timedelta(minutes=9)))
            tx.revoked_tokens.add("revoked", keep_until=now)
            for number in range(3):
                tx.audit.append(make_record(action=Action.TOKEN_ISSUED, details={"n": number, "x": "\0é"}))
        Sealer(store, lambda: now).run()
    with closing(sqlite3.connect(migrated_sqlite_url.removeprefix("sqlite:///"))) as file, file:
        file.execute("UPDATE oidc_trust_policies SET rowid = -1 WHERE derived_from IS NOT NULL")
    return migrated_sqlite_url


def everything(url):
    """All rows of all tables, as stored."""
    engine = copying._reader(copying.parse(url))
    with engine.begin() as connection:
        rows = {
            table.name: sorted(map(repr, connection.execute(table.select()).mappings()))
            for table in copying._tables(connection)
        }
    engine.dispose()
    return rows


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def target(request, tmp_path):
    """The URL of a database that does not exist yet, or has no tables."""
    return (
        request.getfixturevalue("postgres_url")
        if request.param == "postgres"
        else f"sqlite:///{tmp_path}/new.db"
    )


def test_every_row_arrives_as_it_was(source, target):
    """The row counts are returned, all rows are equal, and the audit chain verifies."""
    copied = copying.copy_database(source, target)

    before = everything(source)
    assert copied == {name: len(rows) for name, rows in before.items()}
    assert {name for name, rows in before.items() if not rows} <= {"admin_clients", "audit_gaps"}
    assert everything(target) == before
    with Database(target) as store:
        report = AuditChain(store).verify()
        assert (report["reason"], report["checked"], report["unsealed"]) == (
            None,
            copied["audit_seals"] - 1,
            0,
        )


def test_the_new_database_goes_on(source, target, now, make_record):
    """In the new database a used token stays used, the key signs, and new audit records follow the old ones."""
    copying.copy_database(source, target)

    with Database(target) as store:
        with store.write() as tx:
            assert not tx.used_tokens.claim(UsedToken("issuer", "used", now))
            assert KeyRing(()).current(tx).active
            tx.audit.append(make_record())
        Sealer(store, lambda: now).run()
        assert AuditChain(store).verify()["reason"] is None


def test_a_database_that_was_served_is_no_target(source, target, now):
    """A target that is not empty is refused and left unchanged."""
    schema.migrate(target)
    with Database(target) as store:
        ensure_signing_key(store, "ES256", (), lambda: now)
    before = everything(target)

    refusal = CliRunner().invoke(main, ["copy-database", "--from", source, "--to", target])

    assert refusal.exit_code == 2
    assert refusal.stderr.startswith("sentryagent-idp: --to: the database is not empty (")
    assert "signing_keys" in refusal.stderr
    assert everything(target) == before


def test_a_source_that_is_written_to_is_refused(source, target, make_record, monkeypatch):
    """If a running replica writes to the source during the copy, the copy is discarded."""
    copy_table = copying._copy_table

    def copy_while_served(rows, into, table):
        copy_table(rows, into, table)
        if table.name == "audit_log":
            with Database(source) as store, store.write() as tx:
                tx.audit.append(make_record())

    monkeypatch.setattr(copying, "_copy_table", copy_while_served)

    refusal = CliRunner().invoke(main, ["copy-database", "--from", source, "--to", target])

    assert (refusal.exit_code, refusal.stdout) == (2, "")
    assert "stop every replica" in refusal.stderr
    assert not any(everything(target).values())


def test_the_command_tells_what_it_copied(source, target):
    """The command prints the number of rows of each table."""
    result = CliRunner().invoke(main, ["copy-database", "--from", source, "--to", target])

    assert (result.exit_code, result.stderr) == (0, "")
    counts = dict(line.split() for line in result.stdout.splitlines())
    assert (counts["table"], counts["agents"], counts["oidc_trust_policies"]) == ("rows", "1", "2")


def test_a_target_with_a_password_need_not_be_an_argument(source, target):
    """The target can come from the environment variable: arguments are visible in the process list."""
    variables = {"SENTRYAGENT_DATABASE_URL": target}

    result = CliRunner().invoke(main, ["copy-database", "--from", source], env=variables)

    assert (result.exit_code, result.stderr) == (0, "")
    assert everything(target) == everything(source)


@pytest.mark.parametrize(
    ("source_url", "target_url", "message"),
    [
        ("sqlite:///missing.db", "sqlite:///{}/new.db", "--from: the database is not prepared"),
        ("mysql://x/y", "sqlite:///{}/new.db", '--from: Unsupported database driver "mysql"'),
        ("postgresql+psycopg://x/y", "sqlite:///{}/new.db", "--to: copying from PostgreSQL to SQLite"),
    ],
)
def test_what_cannot_be_copied_is_one_line(tmp_path, source_url, target_url, message):
    """An impossible copy gives one line that names the option, and no target is created."""
    url = target_url.format(tmp_path)

    result = CliRunner().invoke(main, ["copy-database", "--from", source_url, "--to", url])

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"sentryagent-idp: {message}")
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///{}/no/folder.db", "postgresql+psycopg://postgres@127.0.0.1:1/x"])
def test_a_target_that_cannot_be_reached_is_named(source, tmp_path, url):
    """The error names `--to` as the wrong URL."""
    result = CliRunner().invoke(main, ["copy-database", "--from", source, "--to", url.format(tmp_path)])

    assert result.exit_code == 2
    assert result.stderr.startswith("sentryagent-idp: --to: The ")
