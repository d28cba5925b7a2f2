"""The cache of policy snapshots."""

from datetime import UTC, datetime
from uuid import UUID

from msgspec.structs import replace

from kit import records
from sentryagent_idp.concurrency import policy_snapshot
from sentryagent_idp.concurrency.policy_snapshot import PolicySnapshot, SnapshotCache
from sentryagent_idp.domain.identity import WorkflowIdentity

ISSUER = "https://token.actions.githubusercontent.com"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
AGENT = UUID("3f2504e0-4f89-41d3-9a0c-0305e82c3301")


def _snapshot(repository="octo/repo", agent_id=AGENT, policies=1, fingerprint="1"):
    held = [records.policy(NOW, id=UUID(int=number)) for number in range(policies)]
    return PolicySnapshot(ISSUER, repository, agent_id, fingerprint, held, agent_is_active=True)


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
    """Snapshots are cached by issuer, repository (ignoring case) and agent; a newer one replaces the older."""
    cache = SnapshotCache()
    cache.put(_snapshot())
    latest = _snapshot(fingerprint="2")
    cache.put(latest)

    assert cache.get(_run("Octo/Repo"), AGENT) is latest
    assert cache.get(_run(), None) is None
    assert cache.get(_run("octo/other"), AGENT) is None
    assert cache.get(replace(_run(), issuer="https://other.example"), AGENT) is None


def test_cache_is_bounded(monkeypatch):
    """The oldest snapshots are dropped when there are too many policies; a repository with too many is not cached."""
    monkeypatch.setattr(policy_snapshot, "_MOST_POLICIES", 10)
    cache = SnapshotCache()
    for name in ("a", "b", "b", "c"):
        cache.put(_snapshot(f"octo/{name}", policies=4))
    held = [cache.get(_run(f"octo/{name}"), AGENT) is not None for name in "abc"]
    cache.put(_snapshot("octo/large", policies=11))

    assert held == [False, True, True]
    assert cache.get(_run("octo/large"), AGENT) is None
    cache.put(_snapshot("octo/d", policies=10))
    assert cache.get(_run("octo/d"), AGENT) is not None
