"""The audit record: who did what, under which policy, with what outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Action(StrEnum):
    """What a record is about."""

    TOKEN_ISSUED = "token.issued"
    TOKEN_REFUSED = "token.refused"
    TOKEN_REJECTED = "token.rejected"
    TOKEN_REVOKED = "token.revoked"
    AUTH_FAILED = "auth.failed"
    POLICY_CREATED = "policy.created"
    POLICY_UPDATED = "policy.updated"
    POLICY_DELETED = "policy.deleted"
    POLICY_PINNED = "policy.pinned"
    AGENT_CREATED = "agent.created"
    AGENT_UPDATED = "agent.updated"
    AGENT_SUSPENDED = "agent.suspended"
    AGENT_REACTIVATED = "agent.reactivated"
    AGENT_DECOMMISSIONED = "agent.decommissioned"
    CREDENTIAL_GENERATED = "credential.generated"
    CREDENTIAL_ROTATED = "credential.rotated"
    CREDENTIAL_REVOKED = "credential.revoked"
    ADMIN_TOKEN_ISSUED = "admin.token_issued"
    KEY_CREATED = "key.created"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    KEY_REMOVED = "key.removed"
    KEY_REWRAPPED = "key.rewrapped"
    CLIENT_CREATED = "client.created"
    CLIENT_ROTATED = "client.rotated"
    CLIENT_REVOKED = "client.revoked"


class Outcome(StrEnum):
    """How it ended."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What every record of one HTTP request has in common; made by the API, never taken from the client."""

    request_id: str
    address: str | None


PROVIDER = "provider"
"""The actor of what no caller asked for, such as the first signing key or the removal of an old one."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the audit. `details` never holds a token; a token is named by its `jti`."""

    event_id: UUID
    timestamp: datetime
    action: Action
    outcome: Outcome
    actor: str
    request_id: str
    address: str | None
    agent_id: UUID | None = None
    policy_id: UUID | None = None
    policy_version: int | None = None
    repository: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
