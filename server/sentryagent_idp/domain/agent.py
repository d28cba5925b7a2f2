"""AI agents, and which callers may see and change them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.caller import Caller, CallerKind

AGENT_TYPES = (
    "screener",
    "classifier",
    "orchestrator",
    "extractor",
    "summarizer",
    "router",
    "monitor",
    "custom",
)
MAX_LIVE_CREDENTIALS = 5
DEPLOYMENT_ENVS = ("development", "staging", "production")


class AgentStatus(StrEnum):
    """The status of an agent: only an admin can lift a suspension, and decommissioning is final."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DECOMMISSIONED = "decommissioned"


@dataclass(frozen=True, slots=True)
class RegisteredBy:
    """The repository whose bootstrap token registered an agent, identified by issuer and `repository_id` alone.

    `issuer` is `None` if it was unknown.
    """

    provider: str
    repository: str
    repository_id: str
    issuer: str | None = None

    def is_repository_of(self, caller: Caller) -> bool:
        """Whether the caller's bootstrap token was issued to this repository.

        Ids are unique only within one GitHub instance (B16). A token names its issuer if several are configured.
        """
        is_of_issuer = caller.issuer is None or self.issuer in {None, caller.issuer}
        return self.repository_id == caller.repository_id and is_of_issuer


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent. `email` is its unique name, compared case-insensitively."""

    agent_id: UUID
    email: str
    description: str | None
    agent_type: str
    version: str
    capabilities: tuple[str, ...]
    owner: str
    deployment_env: str
    status: AgentStatus
    registered_by: RegisteredBy | None
    created_at: datetime
    updated_at: datetime

    @property
    def is_active(self) -> bool:
        """Whether tokens may be issued to the agent."""
        return self.status is AgentStatus.ACTIVE

    @property
    def in_audit(self) -> Mapping[str, Any]:
        """The fields of an audit record that identify the agent."""
        return {"agent_id": self.agent_id}


@dataclass(frozen=True, slots=True)
class Credential:
    """A client secret of an agent, stored as a hash; revoked credentials are kept."""

    credential_id: UUID
    agent_id: UUID
    secret_hash: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def in_audit(self) -> Mapping[str, Any]:
        """The fields of an audit record that identify the credential."""
        return {"agent_id": self.agent_id, "details": {"credentialId": str(self.credential_id)}}

    def is_live(self, now: datetime) -> bool:
        """Whether the secret is accepted at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class AgentFilter:
    """The filters of a list of agents.

    `email` is compared case-insensitively. The last three come from the caller's token, never from the request:
    a repository sees the agents that it registered, an agent sees itself.
    """

    owner: str | None = None
    agent_type: str | None = None
    status: AgentStatus | None = None
    email: str | None = None
    registered_by_repository_id: str | None = None
    registered_by_issuer: str | None = None
    agent_id: UUID | None = None


_UNCHANGEABLE: dict[CallerKind, frozenset[str]] = {
    CallerKind.ADMIN: frozenset(),
    CallerKind.BOOTSTRAP: frozenset({"status", "email"}),
    CallerKind.AGENT: frozenset({"status", "email", "owner"}),
}


def may_see(caller: Caller, agent: Agent) -> bool:
    """Whether `caller` may see `agent`: an admin sees all, a repository those it registered, an agent itself."""
    if not caller.holds(scopes.AGENTS_READ):
        return False
    if caller.kind is CallerKind.AGENT:
        return agent.agent_id == caller.agent_id
    if caller.kind is CallerKind.BOOTSTRAP:
        return agent.registered_by is not None and agent.registered_by.is_repository_of(caller)
    return True


def unchangeable_field(caller: Caller, fields: Iterable[str]) -> str | None:
    """The first of the agent's `fields` that `caller` may not change, or `None`."""
    return next((field for field in fields if field in _UNCHANGEABLE[caller.kind]), None)
