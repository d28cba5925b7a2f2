"""What this process read of repositories and agents, held until the database says something else."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from uuid import UUID

from sentryagent_idp.domain.agent import AgentStatus
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.trust_policy import Decision, TrustPolicy, decide
from sentryagent_idp.ports import Transaction

_MOST_POLICIES = 10_000
"""Each takes about 1.8 KB."""

_Key = tuple[str, str, UUID | None]
"""Issuer, repository and agent."""


@dataclass(frozen=True, slots=True)
class PolicySnapshot:
    """All that a decision on the runs of a repository rests on: its policies, and the state of the agent."""

    issuer: str
    repository_key: str
    agent_id: UUID | None
    fingerprint: Hashable
    policies: Sequence[TrustPolicy]
    agent_is_active: bool
    service_ttls: Mapping[str, int | None] = field(default_factory=dict)
    """The `max_ttl` of the services that the policies grant, by identifier."""

    def is_current(self, fingerprints: Mapping[tuple[str, str], Hashable]) -> bool:
        """Whether the database, which has these fingerprints, still says the same."""
        return fingerprints.get((self.issuer, self.repository_key)) == self.fingerprint

    def decide(self, identity: WorkflowIdentity, now: datetime, service: str | None = None) -> Decision:
        """The decision on a run of the repository, which asks for a token for a service or for our own API."""
        return decide(
            self.policies,
            identity,
            self.agent_id,
            now,
            agent_is_active=self.agent_is_active,
            service=service,
        )


def read_snapshot(tx: Transaction, identity: WorkflowIdentity, agent_id: UUID | None) -> PolicySnapshot:
    """The policies and the state of the agent in this transaction."""
    repository = (identity.issuer, identity.repository_key)
    # First: what others change from here on is in the policies, but never only in the fingerprint.
    fingerprint = tx.policies.fingerprints([identity.repository_key]).get(repository)
    policies = tx.policies.for_repository(*repository)
    return PolicySnapshot(
        *repository,
        agent_id=agent_id,
        fingerprint=fingerprint,
        policies=policies,
        agent_is_active=agent_is_active(tx, agent_id),
        service_ttls=tx.services.max_ttls({grant.service for policy in policies for grant in policy.grants}),
    )


def agent_is_active(tx: Transaction, agent_id: UUID | None) -> bool:
    """Whether the agent counts; trivially so where a token speaks for none."""
    return agent_id is None or tx.agents.status(agent_id) is AgentStatus.ACTIVE


class SnapshotCache:
    """A bounded memory for many threads; the oldest go first.

    What is held may be outdated: `GroupCommit` finds out before anything rests on it.
    """

    def __init__(self) -> None:
        self._held: dict[_Key, PolicySnapshot] = {}
        self._policies = 0
        self._lock = Lock()

    def held(self, identity: WorkflowIdentity, agent_id: UUID | None) -> PolicySnapshot | None:
        """The snapshot of the run's repository and the agent that was read last."""
        return self._held.get((identity.issuer, identity.repository_key, agent_id))

    def hold(self, snapshot: PolicySnapshot) -> None:
        """Hold what was read."""
        key = (snapshot.issuer, snapshot.repository_key, snapshot.agent_id)
        with self._lock:
            self._forget(key)
            self._held[key] = snapshot
            self._policies += len(snapshot.policies)
            while self._policies > _MOST_POLICIES:
                self._forget(next(iter(self._held)))

    def _forget(self, key: _Key) -> None:
        forgotten = self._held.pop(key, None)
        self._policies -= len(forgotten.policies) if forgotten else 0
