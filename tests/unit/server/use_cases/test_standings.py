"""What a process holds of repositories and agents."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from kit import records
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.use_cases import standings
from sentryagent_idp.use_cases.decision import Standing
from sentryagent_idp.use_cases.standings import Standings

ISSUER = "https://token.actions.githubusercontent.com"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
AGENT = UUID("3f2504e0-4f89-41d3-9a0c-0305e82c3301")


def _policy(number=0, **members):
    return records.policy(NOW, id=UUID(int=number), repository="octo/repo", **members)


def _standing(repository="octo/repo", agent_id=AGENT, policies=1, fingerprint="1"):
    held = [_policy(number) for number in range(policies)]
    return Standing(ISSUER, repository, agent_id, fingerprint, held, agent_is_active=True)


def _run(repository="octo/repo"):
    return replace(WorkflowIdentity.hypothetical(ISSUER, _CLAIMS), repository=repository)


_CLAIMS = {
    "repository": "octo/repo",
    "repository_id": "1",
    "repository_owner_id": "2",
    "ref": "refs/heads/main",
    "event_name": "push",
}


def test_what_was_read_last_is_held():
    """By issuer, repository without case, and agent; the latest reading replaces the one before."""
    memory = Standings()
    memory.hold(_standing())
    latest = _standing(fingerprint="2")
    memory.hold(latest)

    assert memory.held(_run("Octo/Repo"), AGENT) is latest
    assert memory.held(_run(), None) is None
    assert memory.held(_run("octo/other"), AGENT) is None
    assert memory.held(replace(_run(), issuer="https://other.example"), AGENT) is None


def test_memory_is_bounded(monkeypatch):
    """The oldest go when too many policies are held; a repository that alone has too many is never held."""
    monkeypatch.setattr(standings, "_MOST_POLICIES", 10)
    memory = Standings()
    for name in ("a", "b", "b", "c"):
        memory.hold(_standing(f"octo/{name}", policies=4))
    held = [memory.held(_run(f"octo/{name}"), AGENT) is not None for name in "abc"]
    memory.hold(_standing("octo/large", policies=11))

    assert held == [False, True, True]
    assert memory.held(_run("octo/large"), AGENT) is None
    memory.hold(_standing("octo/d", policies=10))
    assert memory.held(_run("octo/d"), AGENT) is not None


@pytest.mark.parametrize(
    ("last_used", "noted", "is_due"),
    [
        (None, None, True),
        (60, None, True),
        (59, None, False),
        (None, 59, False),
        (None, 60, True),
        (600, 1, False),
    ],
)
def test_use_is_noted_once_a_minute(last_used, noted, is_due):
    """What the database said counts until this process has noted a use; ages in seconds."""
    memory = Standings()
    policy = _policy(last_used_at=None if last_used is None else NOW - timedelta(seconds=last_used))
    if noted is not None:
        memory.note_use(policy.id, NOW - timedelta(seconds=noted))

    assert memory.is_use_due(policy, NOW) is is_due


def test_noted_uses_are_bounded(monkeypatch):
    """Too many are forgotten together: the database itself sees to the minute then."""
    monkeypatch.setattr(standings, "_MOST_POLICIES", 2)
    memory = Standings()
    for number in range(3):
        memory.note_use(UUID(int=number), NOW)

    assert [memory.is_use_due(_policy(number), NOW) for number in range(3)] == [True, True, False]
