"""The JSON form of what the provider knows: one source for responses and for the audit."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from sentryagent_idp.domain.agent import Agent, Credential
from sentryagent_idp.domain.audit import AuditRecord
from sentryagent_idp.domain.trust_policy import TrustPolicy


def timestamp(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with `Z`; the fraction is left out where it is zero."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def policy_record(policy: TrustPolicy) -> dict[str, Any]:
    """A trust policy, with every field that an admin may set and those that the server sets."""
    conditions = policy.conditions
    return {
        "id": str(policy.id),
        "provider": policy.provider,
        "issuer": policy.issuer,
        "repository": policy.repository,
        "repositoryId": policy.repository_id,
        "repositoryOwnerId": policy.repository_owner_id,
        "agentId": _text(policy.agent_id),
        "branch": conditions.branch,
        "tag": conditions.tag,
        "environment": conditions.environment,
        "workflow": conditions.workflow,
        "calledWorkflow": conditions.called_workflow,
        "actorIds": _list(conditions.actor_ids),
        "runnerEnvironment": conditions.runner_environment,
        "visibility": conditions.visibility,
        "events": _list(conditions.events),
        "scopes": list(policy.scopes),
        "maxTtl": policy.max_ttl,
        "trustRegistered": policy.trust_registered,
        "derivedFrom": _text(policy.derived_from),
        "enabled": policy.enabled,
        "expiresAt": timestamp(policy.expires_at),
        "description": policy.description,
        "createdAt": timestamp(policy.created_at),
        "updatedAt": timestamp(policy.updated_at),
        "lastUsedAt": timestamp(policy.last_used_at),
        "version": policy.version,
    }


def agent_record(agent: Agent) -> dict[str, Any]:
    """An agent."""
    by = agent.registered_by
    return {
        "agentId": str(agent.agent_id),
        "email": agent.email,
        "description": agent.description,
        "agentType": agent.agent_type,
        "version": agent.version,
        "capabilities": list(agent.capabilities),
        "owner": agent.owner,
        "deploymentEnv": agent.deployment_env,
        "status": agent.status.value,
        "registeredBy": by
        and {"provider": by.provider, "repository": by.repository, "repositoryId": by.repository_id},
        "createdAt": timestamp(agent.created_at),
        "updatedAt": timestamp(agent.updated_at),
    }


def credential_record(credential: Credential) -> dict[str, Any]:
    """A credential without its secret, which nobody can read again."""
    return {
        "credentialId": str(credential.credential_id),
        "clientId": str(credential.agent_id),
        "status": "active" if credential.revoked_at is None else "revoked",
        "createdAt": timestamp(credential.created_at),
        "expiresAt": timestamp(credential.expires_at),
        "revokedAt": timestamp(credential.revoked_at),
    }


def audit_entry(record: AuditRecord) -> dict[str, Any]:
    """One line of the audit."""
    return {
        "eventId": str(record.event_id),
        "timestamp": timestamp(record.timestamp),
        "action": record.action.value,
        "outcome": record.outcome.value,
        "actor": record.actor,
        "agentId": _text(record.agent_id),
        "policyId": _text(record.policy_id),
        "policyVersion": record.policy_version,
        "repository": record.repository,
        "requestId": record.request_id,
        "address": record.address,
        "details": dict(record.details),
    }


def changes(
    before: dict[str, Any], after: dict[str, Any], *, bookkeeping: Collection[str] = ("updatedAt", "version")
) -> dict[str, Any]:
    """The members whose values differ, each with what it was and what it is; `bookkeeping` changes with every write."""
    return {
        name: {"before": before[name], "after": value}
        for name, value in after.items()
        if before[name] != value and name not in bookkeeping
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _list(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)
