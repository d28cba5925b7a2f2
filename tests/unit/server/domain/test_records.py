"""The JSON form of records."""

from datetime import datetime, timedelta, timezone
from uuid import UUID

import kit.records
from sentryagent_idp.domain import records
from sentryagent_idp.domain.agent import Credential, RegisteredBy


def test_timestamps_are_utc_with_z():
    """Timestamps are in UTC, and a zero fraction is omitted."""
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert records.timestamp(moment) == "2025-12-31T23:00:00Z"
    assert records.timestamp(moment.replace(microsecond=5)) == "2025-12-31T23:00:00.000005Z"


def test_a_policy_has_all_its_members(make_policy, now):
    """Every condition is present, set or not, and tuples become lists."""
    record = records.policy_record(
        make_policy(branch="main", events=("push",), expires_at=now, repository_id="101")
    )
    assert sorted(record) == [
        "actorIds",
        "agentId",
        "branch",
        "calledWorkflow",
        "createdAt",
        "derivedFrom",
        "description",
        "enabled",
        "environment",
        "events",
        "expiresAt",
        "grants",
        "id",
        "issuer",
        "lastUsedAt",
        "maxTtl",
        "properties",
        "provider",
        "refProtected",
        "repository",
        "repositoryId",
        "repositoryOwnerId",
        "runnerEnvironment",
        "scopes",
        "tag",
        "trustRegistered",
        "updatedAt",
        "version",
        "visibility",
        "workflow",
    ]
    shown = {
        name: record[name] for name in ("branch", "events", "actorIds", "agentId", "expiresAt", "derivedFrom")
    }
    assert shown == {
        "branch": "main",
        "events": ["push"],
        "actorIds": None,
        "agentId": str(UUID(int=1)),
        "expiresAt": "2026-11-24T12:00:00Z",
        "derivedFrom": None,
    }


def test_an_agent_and_who_registered_it(now):
    """An agent record names the repository that registered the agent, if any."""
    by_repository = kit.records.agent(now, registered_by=RegisteredBy("github", "acme/api", "101"))
    assert records.agent_record(by_repository)["registeredBy"] == {
        "provider": "github",
        "repository": "acme/api",
        "repositoryId": "101",
    }
    by_admin = records.agent_record(kit.records.agent(now))
    assert by_admin["registeredBy"] is None
    assert (by_admin["capabilities"], by_admin["status"]) == (["ci:run"], "active")


def test_a_credential_hides_its_secret(now):
    """A credential's record never contains the secret or its hash."""
    live = Credential(UUID(int=5), UUID(int=1), "HASH", now, None, None)
    revoked = Credential(UUID(int=5), UUID(int=1), "HASH", now, now, now)
    shown = [records.credential_record(it) for it in (live, revoked)]
    assert [it["status"] for it in shown] == ["active", "revoked"]
    assert "HASH" not in str(shown)


def test_an_audit_entry(now):
    """An audit entry has all fields, including absent ones."""
    entry = records.audit_entry(kit.records.audit_record(now, agent_id=UUID(int=1), details={"a": 1}))
    assert (entry["action"], entry["outcome"], entry["timestamp"]) == (
        "token.issued",
        "success",
        "2026-11-24T12:00:00Z",
    )
    assert (entry["agentId"], entry["policyId"], entry["details"]) == (str(UUID(int=1)), None, {"a": 1})


def test_changes_are_what_differs():
    """Only changed fields are listed, without version and timestamp."""
    before = {"branch": "main", "tag": None, "version": 1, "updatedAt": "x"}
    after = {"branch": "dev", "tag": None, "version": 2, "updatedAt": "y"}
    assert records.changes(before, after) == {"branch": {"before": "main", "after": "dev"}}
