"""The limit of live client secrets per agent, on both engines."""

from datetime import timedelta
from uuid import uuid4

import pytest

from kit.records import keep
from kit.threads import at_once
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.domain.scopes import ALL_SCOPES
from sentryagent_idp.errors import TooManyCredentials
from sentryagent_idp.tokens import client_secret
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.credentials import CredentialAdmin
from sentryagent_idp.use_cases.secret_hashing import SecretHashing

ADMIN = Caller("admin-cli", ALL_SCOPES, "jti", 0, 1)
HERE = RequestContext("test", None)


@pytest.fixture
def agent(database, make_agent):
    agent = make_agent()
    keep(database, agent)
    return agent.agent_id


@pytest.fixture
def admin_of(monkeypatch, now):
    """Make one replica's use cases; hashing costs nothing here."""
    monkeypatch.setattr(client_secret, "hash_secret", lambda _: "a hash")

    def make(store):
        return CredentialAdmin(store, Auditor(lambda: now, uuid4), lambda: now, uuid4, SecretHashing())

    return make


def test_at_one_moment_five_are_made(database, other_database, agent, admin_of, now):
    """Of eight concurrent requests on two replicas five succeed: the agent's row is locked while secrets are counted."""
    replicas = [admin_of(database), admin_of(other_database)] * 4

    ended = at_once(*[lambda it=it: it.generate(ADMIN, agent, None, HERE) for it in replicas])

    assert sum(isinstance(it, TooManyCredentials) for it in ended) == 3
    assert sum(isinstance(it, tuple) for it in ended) == 5
    with database.read() as tx:
        assert len(tx.credentials.live(agent, now)) == 5


def test_live_credentials(database, agent, make_agent, make_credential, now):
    """Only the agent's own, unrevoked and unexpired credentials, oldest first; `expires_at` is exclusive."""
    stranger, moment = make_agent(), timedelta(microseconds=1)
    newer = make_credential(agent, created_at=now + moment)
    older = make_credential(agent, created_at=now, expires_at=now + moment)
    with database.write() as tx:
        tx.agents.add(stranger)
        for credential in (
            newer,
            older,
            make_credential(agent, expires_at=now),
            make_credential(agent, revoked_at=now),
            make_credential(agent, revoked_at=now, expires_at=now + moment),
            make_credential(stranger.agent_id),
        ):
            tx.credentials.add(credential)

    with database.read() as tx:
        assert tx.credentials.live(agent, now) == [older, newer]
        assert tx.credentials.live(agent, now + moment) == [newer]
