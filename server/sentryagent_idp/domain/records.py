"""The JSON form of what the provider knows: one source for responses, their schemas and the audit."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, Generic, Literal, TypeVar, overload
from uuid import UUID

# Not `typing`'s: before Python 3.12 pydantic makes schemas of these only.
from typing_extensions import TypedDict

from sentryagent_idp.domain import agent as agents
from sentryagent_idp.domain.audit import Action, AuditRecord, Outcome
from sentryagent_idp.domain.condition_kinds import Condition
from sentryagent_idp.domain.conditions import DECLARED, json_name
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
