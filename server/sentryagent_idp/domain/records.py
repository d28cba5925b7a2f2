"""The JSON form of what the provider knows: one source for responses, their schemas and the audit."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar, overload

# Not `typing`'s: before Python 3.12 pydantic makes schemas of these only.
from typing_extensions import TypedDict

from sentryagent_idp.domain import agent as agents
from sentryagent_idp.domain.audit import Action, AuditRecord, Outcome
from sentryagent_idp.domain.trust_policy import TrustPolicy

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list, and how many items there are in all."""

    data: Sequence[Item]
    total: int


@dataclass(frozen=True, eq=False)
class Schema:
    """Keywords of JSON Schema for the text or number that it annotates."""

    keywords: Mapping[str, Any]

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]) -> Any:
        """The schema with these keywords, as pydantic asks for it."""
        return {**handler(core_schema), **self.keywords}


IdText = Annotated[str, Schema({"format": "uuid"})]
TimeText = Annotated[str, Schema({"format": "date-time"})]
Positive = Annotated[int, Schema({"minimum": 1})]


class RegisteredBy(TypedDict):
    """The repository that registered an agent."""

    provider: str
    repository: str
    repositoryId: str


class Agent(TypedDict):
    """An agent."""

    agentId: IdText
    email: str
    description: str | None
    agentType: Annotated[str, Schema({"enum": list(agents.AGENT_TYPES)})]
    version: str
    capabilities: list[str]
    owner: str
    deploymentEnv: Annotated[str, Schema({"enum": list(agents.DEPLOYMENT_ENVS)})]
    status: agents.AgentStatus
    registeredBy: RegisteredBy | None
    createdAt: TimeText
    updatedAt: TimeText


class Credential(TypedDict):
    """A client secret's record, without the secret."""

    credentialId: IdText
    clientId: IdText
    status: Literal["active", "revoked"]
    createdAt: TimeText
    expiresAt: TimeText | None
    revokedAt: TimeText | None


class NewSecret(Credential):
    """A client secret, shown this once."""

    clientSecret: str


class AuditEntry(TypedDict):
    """One line of the audit."""

    eventId: IdText
    timestamp: TimeText
    action: Action
    outcome: Outcome
    actor: str
    agentId: IdText | None
    policyId: IdText | None
    policyVersion: int | None
    repository: str | None
    requestId: str
    address: str | None
    details: dict[str, Any]


class FailedCondition(TypedDict):
    """A condition of a policy that the run does not meet, and what to change."""

    condition: str
    expected: Any
    actual: Any
    hint: str


class TracedPolicy(TypedDict):
    """A policy that was looked at."""

    policyId: IdText
    matched: list[str]
    failed: list[FailedCondition]


@overload
def timestamp(moment: datetime) -> str: ...
@overload
def timestamp(moment: datetime | None) -> str | None: ...


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


def agent_record(agent: agents.Agent) -> Agent:
    """An agent."""
    repository = agent.registered_by
    return {
        "agentId": str(agent.agent_id),
        "email": agent.email,
        "description": agent.description,
        "agentType": agent.agent_type,
        "version": agent.version,
        "capabilities": list(agent.capabilities),
        "owner": agent.owner,
        "deploymentEnv": agent.deployment_env,
        "status": agent.status,
        "registeredBy": None
        if repository is None
        else {
            "provider": repository.provider,
            "repository": repository.repository,
            "repositoryId": repository.repository_id,
        },
        "createdAt": timestamp(agent.created_at),
        "updatedAt": timestamp(agent.updated_at),
    }


def credential_record(credential: agents.Credential) -> Credential:
    """A credential without its secret, which nobody can read again."""
    return {
        "credentialId": str(credential.credential_id),
        "clientId": str(credential.agent_id),
        "status": "active" if credential.revoked_at is None else "revoked",
        "createdAt": timestamp(credential.created_at),
        "expiresAt": timestamp(credential.expires_at),
        "revokedAt": timestamp(credential.revoked_at),
    }


def audit_entry(record: AuditRecord) -> AuditEntry:
    """One line of the audit."""
    return {
        "eventId": str(record.event_id),
        "timestamp": timestamp(record.timestamp),
        "action": record.action,
        "outcome": record.outcome,
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
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    bookkeeping: Collection[str] = ("updatedAt", "version"),
) -> dict[str, Any]:
    """The fields whose values differ, each with what it was and what it is; `bookkeeping` changes with every write."""
    return {
        name: {"before": before[name], "after": value}
        for name, value in after.items()
        if before[name] != value and name not in bookkeeping
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _list(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)
