"""Exchanges decided on a policy snapshot are fast and never use outdated policies.

Each change is made by another replica, which does not notify this one.
"""

from dataclasses import replace
from uuid import UUID

import pytest

from kit.policies import delete, post, put
from kit.provider import AGENTS, GITHUB, HERE, POLICIES, key_admin
from kit.refusals import assert_refused
from kit.tokens import claims_of, kid_of
from mock_idp.job import Job
from sentryagent_idp.store.trust_policies import PolicyTable
from sentryagent_idp.use_cases import exchange


@pytest.fixture
def trusted(provider):
    """An agent and its policy; this replica has exchanged for it and holds a snapshot."""
    agent = provider.agent()["agentId"]
    policy = provider.policy(
        branch="main",
        agentId=agent,
        repositoryId=Job().repository_id,
        repositoryOwnerId=Job().repository_owner_id,
    )
    assert provider.exchange(agentId=agent).status_code == 200
    return agent, policy


@pytest.fixture
def other(provider):
    """Another replica on the same database."""
    return provider.with_settings()


@pytest.fixture
def reads(provider, monkeypatch):
    """The reads of all policies of a repository."""
    seen = []
    original = PolicyTable.for_repository

    def counted(self, *args):
        seen.append(args)
        return original(self, *args)

    monkeypatch.setattr(PolicyTable, "for_repository", counted)
    return seen


def test_nothing_is_read_twice(provider, trusted, reads):
    """From the second exchange on policies are not read; each exchange has its own token, record and used `jti`."""
    agent, policy = trusted
    answers = [provider.exchange(agentId=agent) for _ in range(3)]

    assert reads == []
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json["access_token"] for answer in answers}) == 3
    records = provider.audit(action="token.issued", policyId=policy["id"])
    assert len(records) == 4
    assert len({record["details"]["jti"] for record in records}) == 4


def test_what_is_new_here_is_read_once_and_kept_with_others(provider, other, trusted, reads):
    """A first exchange, and the first after a change, read the policies once and then use group commit."""
    agent, policy = trusted
    kept = kept_by(other)

    assert other.exchange(agentId=agent).status_code == 200
    provider.put(f"{POLICIES}/{policy['id']}", json=policy | {"maxTtl": 60})
    assert other.exchange(agentId=agent).json["expires_in"] == 60
    assert other.exchange(agentId=agent).status_code == 200

    assert kept == [True, False, True, True]
    assert len(reads) == 2


@pytest.mark.parametrize(("others", "times"), [(0, 0), (19, 0), (20, 1)])
def test_a_decision_on_many_policies_leaves_the_loop(provider, trusted, others, times, monkeypatch):
    """A decision on many policies takes long enough to block the event loop, so it runs elsewhere."""
    agent, _ = trusted
    for number in range(others):
        provider.policy(branch=f"release/{number}", agentId=agent)
    assert provider.exchange(agentId=agent).status_code == 200
    left = []
    monkeypatch.setattr(exchange, "off_loop", lambda work: left.append(work) or work())

    assert provider.exchange(agentId=agent).status_code == 200
    assert len(left) == times


@pytest.mark.parametrize("held", [False, True])
def test_a_change_after_the_reading_counts(provider, other, trusted, held, monkeypatch):
    """A policy that is deleted while the token is being created allows no run."""
    agent, policy = trusted
    replica = provider if held else other
    group_commit = replica.exchange_use_case.group_commit
    commit = group_commit.commit

    def too_late(exchange):
        _delete(provider, agent, policy)
        return commit(exchange)

    monkeypatch.setattr(group_commit, "commit", too_late)
    assert_refused(replica.exchange(agentId=agent), 403, "TRUST_POLICY_VIOLATION")


def test_who_is_refused_leaves_nothing_in_memory(provider, other, trusted):
    """A refused run leaves no snapshot, or strangers could evict those of trusted repositories."""
    agent, _ = trusted
    dev = provider.github_token(ref="refs/heads/dev")
    assert_refused(other.exchange(dev, agentId=agent), 403, "BRANCH_NOT_PERMITTED")
    assert_refused(
        other.exchange(provider.github_token(repository="octo-org/x")), 403, "TRUST_POLICY_VIOLATION"
    )

    assert other.exchange_use_case.snapshots._snapshots == {}


def kept_by(provider):
    """Whether this replica's group commit kept each exchange."""
    group_commit, outcomes = provider.exchange_use_case.group_commit, []
    commit = group_commit.commit

    def recorded(exchange):
        outcomes.append(commit(exchange))
        return outcomes[-1]

    group_commit.commit = recorded
    return outcomes


def test_a_policy_is_pinned_at_its_first_use(provider, trusted):
    """An unpinned policy is pinned even if the snapshot has a pinned one: a later owner has other ids (A8)."""
    agent, policy = trusted
    other = UUID(provider.policy(branch="dev", agentId=agent)["id"])
    with provider.store.write() as tx:
        tx.policies.replace(replace(tx.policies.get(other), repository_id=None, repository_owner_id=None))
    assert provider.exchange(agentId=agent).status_code == 200
    assert provider.exchange(provider.github_token(ref="refs/heads/dev"), agentId=agent).status_code == 200

    stored = provider.get(f"{POLICIES}/{other}").json
    assert stored["repositoryId"] == policy["repositoryId"]
    assert [it["policyId"] for it in provider.audit(action="policy.pinned")] == [str(other)]


def test_a_used_token_is_refused(provider, trusted):
    """A replay gets the usual refusal, is audited once, and is not retried on the same snapshot."""
    token = provider.github_token()
    kept = kept_by(provider)
    assert provider.exchange(token, agentId=trusted[0]).status_code == 200

    assert_refused(
        provider.exchange(token, agentId=trusted[0]), 401, "INVALID_OIDC_TOKEN", {"reason": "replayed"}
    )
    assert kept == [True, False]
    assert len(provider.audit(action="token.refused")) == 1


def _delete(other, _agent, policy):
    return delete(other, policy)


def _narrow(other, agent, policy):
    return put(other, policy, branch="release", agentId=agent)


def _disable(other, agent, policy):
    return put(other, policy, branch="main", agentId=agent, enabled=False)


def _pin_to_others(other, _agent, _policy):
    return post(other, branch="x", repositoryId="1", repositoryOwnerId="2")


def _suspend(other, agent, _policy):
    return other.patch(f"{AGENTS}/{agent}", json={"status": "suspended"})


CHANGES = [
    (_delete, "TRUST_POLICY_VIOLATION"),
    (_narrow, "BRANCH_NOT_PERMITTED"),
    (_disable, "TRUST_POLICY_VIOLATION"),
    (_pin_to_others, "IDENTITY_CHANGED"),
    (_suspend, "TRUST_POLICY_VIOLATION"),
]


@pytest.mark.parametrize(("change", "code"), CHANGES, ids=lambda it: getattr(it, "__name__", it))
def test_a_change_counts_at_once(provider, other, trusted, change, code):
    """A restriction made by another replica applies to the next exchange; the token stays unused."""
    assert change(other, *trusted).status_code in {200, 201, 204}
    token = provider.github_token()

    assert_refused(provider.exchange(token, agentId=trusted[0]), 403, code)
    with provider.store.read() as tx:
        assert not tx.used_tokens.contains(GITHUB, claims_of(token)["jti"])


def test_an_expired_policy_counts_no_more(provider):
    """A policy expires without any change in the database."""
    agent = provider.agent()["agentId"]
    provider.policy(branch="main", agentId=agent, expiresAt="2026-11-24T12:01:00Z")
    for seconds in (0, 1, 58):
        provider.clock.advance(seconds)
        assert provider.exchange(agentId=agent).status_code == 200
    provider.clock.advance(1)

    assert_refused(provider.exchange(agentId=agent), 403, "TRUST_POLICY_VIOLATION")


def test_a_permission_counts_at_once(provider, other, trusted):
    """A run that another replica has allowed is not refused because of an outdated snapshot."""
    agent, policy = trusted
    assert _narrow(other, agent, policy).status_code == 200
    assert (
        provider.exchange(provider.github_token(ref="refs/heads/release"), agentId=agent).status_code == 200
    )


def test_less_scope_counts_at_once(provider, other, trusted):
    """A token never has a scope that its policy no longer grants."""
    agent, policy = trusted
    assert "agents:read" in provider.exchange(agentId=agent).json["scope"]
    assert put(other, policy, branch="main", agentId=agent, scopes=["tokens:read"]).status_code == 200

    assert provider.exchange(agentId=agent).json["scope"] == "tokens:read"


def test_a_revoked_key_signs_no_more(provider, trusted):
    """After another process revokes the active key, the next token is signed with its successor."""
    agent, _ = trusted
    before = _kid(provider.exchange(agentId=agent))
    signing = key_admin(provider.store, provider.clock).revoke("admin-cli", before, HERE)

    assert before != signing.kid
    assert _kid(provider.exchange(agentId=agent)) == signing.kid


def _kid(answer):
    return kid_of(answer.json["access_token"])
