"""The JSON form of domain objects: one source for responses, their schemas and the audit."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache, partial
from operator import attrgetter
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

# Not that of `typing`: before Python 3.12, pydantic makes schemas only of this one.
from typing_extensions import TypedDict

from sentryagent_idp.domain import agent as agents
from sentryagent_idp.domain import condition_kinds
from sentryagent_idp.domain.audit import Action, AuditRecord, Outcome
from sentryagent_idp.domain.condition_kinds import Condition
from sentryagent_idp.domain.conditions import DECLARED, json_name
from sentryagent_idp.domain.service import Service, ServiceGrant, ServiceScope
from sentryagent_idp.domain.trust_policy import TrustPolicy

Item = TypeVar("Item")
Record = TypeVar("Record")


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
        """Return the schema with these keywords; pydantic calls this."""
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
    """A client secret, shown only once."""

    clientSecret: str


class GrantedService(TypedDict):
    """The scopes that a policy grants at a service."""

    service: str
    scopes: list[str]


class ScopeOfService(TypedDict):
    """A scope of a service, and what it allows there."""

    name: str
    description: str | None


class RegisteredService(TypedDict):
    """A service: a resource server that accepts our tokens; `maxTtl` is in seconds."""

    serviceId: IdText
    identifier: str
    description: str | None
    scopes: list[ScopeOfService]
    maxTtl: Positive | None
    createdAt: TimeText
    updatedAt: TimeText
    version: Positive


class AuditEntry(TypedDict):
    """An audit record."""

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
    """An evaluated policy."""

    policyId: IdText
    matched: list[str]
    failed: list[FailedCondition]


def timestamp(moment: datetime) -> str:
    """A time as ISO 8601 in UTC with `Z`, without its fraction if that is zero."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _record(kind: type[Record], source: object) -> Record:
    """Build a `kind` from the attributes of `source` that have the names of its fields in snake case."""
    names = kind.__annotations__
    return kind(**{name: _json_value(getattr(source, _attribute(name))) for name in names})


@cache
def _attribute(name: str) -> str:
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)


def _json_value(value: Any) -> Any:
    convert = _JSON.get(type(value))
    return value if convert is None else convert(value)


_JSON: Mapping[type, Callable[[Any], Any]] = {
    datetime: timestamp,
    UUID: str,
    tuple: lambda items: list(map(_json_value, items)),
    dict: lambda fields: {name: _json_value(value) for name, value in fields.items()},
    agents.RegisteredBy: partial(_record, RegisteredBy),
    ServiceGrant: partial(_record, GrantedService),
    ServiceScope: partial(_record, ScopeOfService),
}


def policy_fields() -> Iterator[tuple[str, Condition | None]]:
    """The fields of a policy in the order of a response; conditions have their declaration, the others `None`."""
    for field in fields(TrustPolicy):
        if field.name == "conditions":
            yield from DECLARED.items()
        else:
            yield field.name, None


_POLICY_FIELDS = list(policy_fields())
_POLICY_NAMES = [json_name(name) for name, _ in _POLICY_FIELDS]
_policy_values = attrgetter(
    *(f"conditions.{name}" if condition else name for name, condition in _POLICY_FIELDS)
)


def policy_record(policy: TrustPolicy) -> dict[str, Any]:
    """The JSON form of a trust policy, with the fields that an admin may set and those that the server sets."""
    return dict(zip(_POLICY_NAMES, map(_json_value, _policy_values(policy)), strict=True))


def agent_record(agent: agents.Agent) -> Agent:
    """The JSON form of an agent."""
    return _record(Agent, agent)


def credential_record(credential: agents.Credential) -> Credential:
    """The JSON form of a credential, without its secret, which cannot be read again."""
    return {
        "credentialId": str(credential.credential_id),
        "clientId": str(credential.agent_id),
        "status": "active" if credential.revoked_at is None else "revoked",
        "createdAt": timestamp(credential.created_at),
        "expiresAt": _json_value(credential.expires_at),
        "revokedAt": _json_value(credential.revoked_at),
    }


def service_record(service: Service) -> RegisteredService:
    """The JSON form of a service."""
    return _record(RegisteredService, service)


def service_grant(grant: ServiceGrant) -> GrantedService:
    """The JSON form of a policy's grant at a service."""
    return _record(GrantedService, grant)


def audit_entry(record: AuditRecord) -> AuditEntry:
    """The JSON form of an audit record."""
    return _record(AuditEntry, record)


def failed_condition(failed: condition_kinds.FailedCondition) -> FailedCondition:
    """The JSON form of a condition that the run does not meet."""
    return _record(FailedCondition, failed)


def changes(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    bookkeeping: Collection[str] = ("updatedAt", "version"),
) -> dict[str, Any]:
    """The fields that differ, each with its value before and after, except `bookkeeping`, which every write changes."""
    return {
        name: {"before": before[name], "after": value}
        for name, value in after.items()
        if before[name] != value and name not in bookkeeping
    }
