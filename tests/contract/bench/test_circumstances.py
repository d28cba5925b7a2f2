"""The circumstances of the benchmark: a grown database, a failing issuer, the build of Python."""

import sqlite3
import sysconfig
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event

import httpx
import pytest
from sqlalchemy import create_engine

from bench import growth, machine
from bench.disturbance import issuer_down, repeated
from bench.workload import REPOSITORIES
from sentryagent_idp.store.used_tokens import USED_TOKENS

LONG = 20.0


@pytest.fixture
def database(tmp_path):
    """A SQLite file with the provider's table of used tokens, and a policy table with the columns in which copies differ."""
    path = tmp_path / "provider.db"
    engine = create_engine(f"sqlite:///{path}")
    USED_TOKENS.create(engine)
    engine.dispose()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TABLE oidc_trust_policies (id TEXT PRIMARY KEY, repository TEXT, repository_key TEXT, "
            "conditions_key TEXT, agent_id TEXT, UNIQUE (repository_key, conditions_key))"
        )
        for number, name in enumerate(REPOSITORIES):
            connection.execute(
                "INSERT INTO oidc_trust_policies VALUES (?, ?, ?, '', 'agent')", (number, name, name)
            )
    return path


def ask(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_policies_are_copied_for_other_repositories(database):
    """There are exactly `rows` policies, including those of the load, all for the same agent."""
    replace(growth.POLICIES, rows=100).fill(database)

    rows = ask(
        database, "SELECT count(DISTINCT repository), count(*), min(agent_id) FROM oidc_trust_policies"
    )
    assert rows == [(100, 100, "agent")]


def test_used_tokens_are_digests_that_nobody_purges(database):
    """Used tokens are as long as a SHA-256 digest and kept for years, in the unit of the provider's column."""
    replace(growth.USED_TOKENS, rows=1000).fill(database)

    rows = ask(database, "SELECT count(DISTINCT token_digest), min(length(token_digest)) FROM used_tokens")
    assert rows == [(1000, 32)]
    engine = create_engine(f"sqlite:///{database}")
    with engine.connect() as connection:
        row = connection.execute(USED_TOKENS.select()).first()
    engine.dispose()
    assert row.keep_until == datetime(2099, 1, 1, tzinfo=UTC)


def test_the_issuer_is_down_during_the_block_and_each_refusal_is_counted(mock_idp):
    """The provider fetches from a failing endpoint during the block, and from a working one afterwards."""
    asked = Event()
    jwks = f"{mock_idp.issuer}/.well-known/jwks"

    def fetch():
        answer = httpx.get(jwks, trust_env=False)
        assert answer.status_code == 503
        asked.set()

    with issuer_down(mock_idp, fetch).during() as count:
        assert asked.wait(LONG)
        refused = count()

    assert refused >= 1
    assert httpx.get(jwks, trust_env=False).status_code == 200


def test_an_act_is_repeated_until_the_block_ends():
    """The action is repeated during the block, but not after it."""
    twice, acts = Event(), []

    def act():
        acts.append(True)
        if len(acts) == 2:
            twice.set()

    with repeated("an act", act).during() as count:
        assert twice.wait(LONG)
        counted = count()

    ended_with = len(acts)
    assert 1 <= counted <= ended_with
    assert ended_with >= 2


def test_an_act_that_fails_ends_the_run():
    """A failing action ends the run, because a failed rotation must not look like one without an effect."""
    failed = Event()

    def act():
        failed.set()
        raise RuntimeError("no such key")

    with pytest.raises(RuntimeError, match="no such key"), repeated("an act", act).during():
        assert failed.wait(LONG)


@pytest.mark.parametrize(
    ("options", "prefix", "told"),
    [
        (
            "'--prefix=/a' '--enable-optimizations' '--with-lto'",
            "/a",
            "configured with --enable-optimizations --with-lto",
        ),
        ("'--prefix=/a' 'LDFLAGS=-L/a -Wl,-rpath'", "/a", "configured without --enable-optimizations"),
        ("'--prefix=/usr'", "/usr", "the system's package; its options do not show how it was optimised"),
    ],
)
def test_the_build_of_python_is_told_as_far_as_it_is_known(monkeypatch, options, prefix, told):
    """The page states Python's build options, and says so if a system package does not reveal them."""
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _name: options)
    monkeypatch.setattr(machine.sys, "base_prefix", prefix)

    assert machine.python().endswith(f", {told}")
