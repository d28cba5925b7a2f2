"""Trust policies: which run of which repository may act as which agent."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from server.domain.identity import GITHUB, repository_key
from server.domain.scopes import DEFAULT_POLICY_SCOPES


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a run must be besides being of the repository; `None` asks for nothing, all are ANDed."""

    branch: str | None = None
    tag: str | None = None
    environment: str | None = None
    workflow: str | None = None
    called_workflow: str | None = None
    actor_ids: tuple[str, ...] | None = None
    runner_environment: str | None = None
    visibility: str | None = None
    events: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """One policy. Without `agent_id` it is a bootstrap policy; the ids pin the repository's identity."""

    id: UUID
    issuer: str
    repository: str
    created_at: datetime
    updated_at: datetime
    agent_id: UUID | None = None
    conditions: Conditions = Conditions()
    repository_id: str | None = None
    repository_owner_id: str | None = None
    scopes: tuple[str, ...] = DEFAULT_POLICY_SCOPES
    max_ttl: int | None = None
    trust_registered: bool = False
    enabled: bool = True
    expires_at: datetime | None = None
    description: str | None = None
    provider: str = GITHUB
    version: int = 1
    last_used_at: datetime | None = None
    derived_from: UUID | None = None

    @property
    def repository_key(self) -> str:
        """The repository's name in the form in which names are compared."""
        return repository_key(self.repository)

    def is_live(self, now: datetime) -> bool:
        """Whether the policy counts at `now`: enabled and not expired."""
        return self.enabled and (self.expires_at is None or now < self.expires_at)
