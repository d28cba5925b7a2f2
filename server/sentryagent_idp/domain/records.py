"""The JSON form of what the provider knows: one source for responses and for the audit."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from sentryagent_idp.domain.agent import Agent, Credential
from sentryagent_idp.domain.audit import AuditRecord
from sentryagent_idp.domain.condition_kinds import Condition
from sentryagent_idp.domain.conditions import DECLARED, json_name
from sentryagent_idp.domain.trust_policy import TrustPolicy


def timestamp(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with `Z`; the fraction is left out where it is zero."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def json_value(value: Any) -> Any:
    """A value of a field as answers and audit have it."""
    convert = _JSON.get(type(value))
    return value if convert is None else convert(value)


_JSON: Mapping[type, Callable[[Any], Any]] = {
    datetime: timestamp,
    UUID: str,
    tuple: list,
    dict: lambda members: {name: json_value(value) for name, value in members.items()},
}


def policy_fields() -> Iterator[tuple[str, Condition | None]]:
    """The fields of a policy in the order of an answer, the conditions in their place with their declarations."""
    for it in fields(TrustPolicy):
        if it.name == "conditions":
            yield from DECLARED.items()
        else:
            yield it.name, None


_POLICY_FIELDS = list(policy_fields())
_POLICY_NAMES = [json_name(name) for name, _ in _POLICY_FIELDS]
_policy_values = attrgetter(*(f"conditions.{name}" if it else name for name, it in _POLICY_FIELDS))


def policy_record(policy: TrustPolicy) -> dict[str, Any]:
    """A trust policy, with every field that an admin may set and those that the server sets."""
    return dict(zip(_POLICY_NAMES, map(json_value, _policy_values(policy)), strict=True))


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
