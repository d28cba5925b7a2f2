"""Agents: their status, who sees them, and who may change which field."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from kit import records
from sentryagent_idp.domain.agent import AgentStatus, RegisteredBy, may_see, unchangeable_field
from sentryagent_idp.domain.caller import Caller

AGENT = UUID(int=1)
REPOSITORY = {"repository_id": "101"}


@pytest.fixture
def record(now):
    return records.agent(now, agent_id=AGENT, registered_by=RegisteredBy("github", "acme/api", "101"))


def _caller(subject, *scopes, provenance=None):
    return Caller(subject=subject, scopes=scopes, jti="j", iat=0, exp=1, provenance=provenance or {})


@pytest.mark.parametrize(
    ("status", "is_active"), [("active", True), ("suspended", False), ("decommissioned", False)]
)
def test_only_active_agents_act(status, is_active, record):
    """A suspended or decommissioned agent is not active."""
    assert replace(record, status=AgentStatus(status)).is_active is is_active


@pytest.mark.parametrize(
    ("caller", "is_visible"),
    [
        (_caller("admin-cli", "agents:read"), True),
        (_caller("admin-cli", "agents:write"), True),
        (_caller("admin-cli", "audit:read"), False),
        (_caller("repo:acme/api", "agents:write", provenance=REPOSITORY), True),
        # Same name, different repository: only the id counts (A8).
        (_caller("repo:acme/api", "agents:write", provenance={"repository_id": "102"}), False),
        (_caller("repo:acme/api", "agents:write"), False),
        (_caller(str(AGENT), "agents:read"), True),
        (_caller(str(AGENT), "tokens:read"), False),
        (_caller(str(UUID(int=2)), "agents:read"), False),
    ],
)
def test_who_sees_an_agent(caller, is_visible, record):
    """An admin sees all agents, a repository the agents that it registered, an agent itself."""
    assert may_see(caller, record) is is_visible


def test_an_agent_of_no_repository_is_seen_by_none(record):
    """An agent that an admin registered belongs to no repository, not even to one without an id."""
    by_admin = replace(record, registered_by=None)
    assert not may_see(_caller("repo:acme/api", "agents:write"), by_admin)


@pytest.mark.parametrize(
    ("subject", "members", "expected"),
    [
        ("admin-cli", ["status", "email", "owner"], None),
        ("repo:acme/api", ["owner", "version"], None),
        ("repo:acme/api", ["version", "status"], "status"),
        ("repo:acme/api", ["email"], "email"),
        (str(AGENT), ["version"], None),
        (str(AGENT), ["owner"], "owner"),
        (str(AGENT), ["status"], "status"),
        (str(AGENT), ["email"], "email"),
        (str(AGENT), [], None),
    ],
)
def test_who_changes_what(subject, members, expected):
    """Only an admin changes status and e-mail; an admin or the repository changes the owner."""
    assert unchangeable_field(_caller(subject, "agents:write"), members) == expected


@pytest.mark.parametrize(
    ("expires", "revoked", "is_live"),
    [
        (None, None, True),
        (1, None, True),
        (0, None, False),
        (-1, None, False),
        (1, -1, False),
        (None, 1, False),
    ],
)
def test_when_a_credential_is_live(expires, revoked, is_live, now):
    """A secret is live until it expires or is revoked; times are in seconds from now."""
    expires_at, revoked_at = (
        None if it is None else now + timedelta(seconds=it) for it in (expires, revoked)
    )
    credential = records.credential(now, AGENT, expires_at=expires_at, revoked_at=revoked_at)
    assert credential.is_live(now) is is_live
