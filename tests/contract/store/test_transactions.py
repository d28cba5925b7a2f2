"""The guarantees of a transaction, on both engines."""

import subprocess
import sys
from threading import Event

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from kit.records import keep
from kit.threads import at_once
from sentryagent_idp.domain.audit import AuditFilter
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.errors import AgentNotFound, DatabaseUnavailable
from sentryagent_idp.ports import WriterBusy
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.store.url import sqlite_file

ISSUER = "https://token.actions.githubusercontent.com"


def test_all_of_a_transaction_is_kept_or_none(
    database, other_database, make_agent, make_policy, make_record, now
):
    """An error undoes every write of its transaction and reaches the caller unchanged."""
    agent, policy, refusal = make_agent(), make_policy(), AgentNotFound("no")

    def fail():
        with database.write() as tx:
            tx.agents.add(agent)
            tx.policies.add(policy)
            tx.used_tokens.claim(UsedToken(ISSUER, "a", now))
            tx.audit.append(make_record())
            tx.settings.put("issuer", 1)
            raise refusal

    with pytest.raises(AgentNotFound) as raised:
        fail()
    assert raised.value is refusal
    with other_database.read() as tx:
        assert tx.agents.get(agent.agent_id) is None
        assert tx.policies.get(policy.id) is None
        assert not tx.used_tokens.contains(ISSUER, "a")
        assert tx.audit.page(AuditFilter(), limit=20, is_counted=True).total == 0
        assert tx.settings.get("issuer") is None


@pytest.mark.parametrize("durable", [True, False])
def test_only_a_durable_commit_waits_for_the_disk(database, durable, now):
    """SQLite syncs at FULL only, PostgreSQL at `on`; commits of both kinds are visible at once."""
    with database.write() as tx:  # neither kind of transaction changes the setting for the other
        waits_before = _waits_for_disk(tx)
    with database.write(durable=durable) as tx:
        waits = _waits_for_disk(tx)
        assert tx.used_tokens.claim(UsedToken(ISSUER, "a", now))
    with database.write() as tx:
        waits_after = _waits_for_disk(tx)
        assert tx.used_tokens.contains(ISSUER, "a")

    assert (waits_before, waits, waits_after) == (True, durable, True)


def _waits_for_disk(tx):
    connection = tx.used_tokens._connection
    if connection.dialect.name == "sqlite":
        return {2: True, 1: False}[connection.exec_driver_sql("PRAGMA synchronous").scalar_one()]
    return {"on": True, "off": False}[connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()]


def test_a_reading_transaction_cannot_write(database, now):
    """The database itself refuses a write in a read transaction, and stays usable."""
    with pytest.raises((DBAPIError, DatabaseUnavailable)), database.read() as tx:
        tx.used_tokens.claim(UsedToken(ISSUER, "a", now))
    with database.write() as tx:
        assert tx.used_tokens.claim(UsedToken(ISSUER, "a", now))


def test_reading_does_not_wait_for_writing(database, other_database, now):
    """While one transaction writes, readers see the last committed state."""
    with database.write() as writing:
        writing.settings.put("issuer", "new")
        with database.read() as tx, other_database.read() as elsewhere:
            assert (tx.settings.get("issuer"), elsewhere.settings.get("issuer")) == (None, None)


def test_what_is_committed_is_seen_at_once(database, other_database):
    """The next transaction on any replica sees a committed change."""
    with database.write() as tx:
        tx.settings.put("issuer", "new")
    with other_database.read() as tx:
        assert tx.settings.get("issuer") == "new"


def test_a_read_agent_is_not_locked(database, other_database, make_agent):
    """Reading an agent does not wait while another transaction holds its row."""
    agent = make_agent()
    keep(database, agent)
    with database.write() as tx:
        tx.agents.get(agent.agent_id)
        with other_database.read() as reading:
            assert reading.agents.get(agent.agent_id) == agent


@pytest.mark.postgres
def test_exchanges_of_one_agent_do_not_queue(migrated_postgres_url, make_agent, make_policy, now):
    """On PostgreSQL, exchanges for the same agent and policies run in parallel."""
    agent = make_agent()
    policy = make_policy(agent_id=agent.agent_id, last_used_at=now)
    with Database(migrated_postgres_url) as database:
        keep(database, agent, policy)

        def exchange(tx, jti):
            assert tx.agents.status(agent.agent_id) is agent.status
            assert tx.policies.for_repository(ISSUER, policy.repository_key) == [policy]
            assert tx.used_tokens.claim(UsedToken(ISSUER, jti, now))
            tx.policies.mark_used([policy.id], now)

        with database.write() as first, database.write() as second:
            exchange(first, "a")
            exchange(second, "b")


def test_many_threads_share_a_database(database, make_record):
    """Thirty threads of one process write at the same time: they wait for each other and none fails."""
    done = Event()

    def write():
        keep(database, make_record())
        done.set()

    assert at_once(*[write] * 30) == [None] * 30
    assert done.is_set()
    with database.read() as tx:
        assert tx.audit.page(AuditFilter(), limit=1, is_counted=True).total == 30


WORKER = """
import sys
from datetime import UTC, datetime
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.ports import WriterBusy
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.store.url import sqlite_file
url, name = sys.argv[1:]
schema.migrate(url)
with Database(url) as database:
    for number in range(50):
        with database.write() as tx:
            assert tx.used_tokens.claim(UsedToken("issuer", f"{name}-{number}", datetime(2026, 1, 1, tzinfo=UTC)))
            winner = tx.used_tokens.claim(UsedToken("issuer", f"shared-{number}", datetime(2026, 1, 1, tzinfo=UTC)))
        if winner:
            print(number)
"""


def test_worker_processes_share_a_new_database(empty_url):
    """Three processes migrate one new database and claim the same tokens: none fails, and each token has one winner."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, empty_url, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    outputs = [worker.communicate(timeout=60) for worker in workers]
    assert [(worker.returncode, err) for worker, (_, err) in zip(workers, outputs, strict=True)] == [
        (0, "")
    ] * 3
    won = [int(number) for out, _ in outputs for number in out.split()]
    assert sorted(won) == list(range(50))
    assert schema.is_prepared(empty_url)


def test_each_transaction_is_timed(url):
    """Each transaction is timed by its kind, even if it fails; a `WriterBusy` is not timed, because it is retried."""
    seen = []
    with Database(url, lambda operation, seconds: seen.append((operation, seconds >= 0))) as timed:
        with timed.read() as tx:
            tx.settings.get("issuer")
        with pytest.raises(AgentNotFound), timed.write():
            raise AgentNotFound("no")
        if timed.is_local:
            with timed.write_at_once() as tx:
                tx.settings.put("issuer", 1)
            with timed.write(), pytest.raises(WriterBusy), timed.write_at_once():
                pass

    local = [("write", True)] if timed.is_local else []
    assert seen == [("read", True), ("write", True), *local]


def test_close_ends_the_connection_that_is_kept(migrated_sqlite_url):
    """Closing the last connection makes SQLite remove the write-ahead log."""
    path = sqlite_file(make_url(migrated_sqlite_url))
    with Database(migrated_sqlite_url) as database, database.write_at_once() as tx:
        tx.settings.put("issuer", 1)

    assert [file.name for file in path.parent.glob(f"{path.name}*")] == [path.name]
