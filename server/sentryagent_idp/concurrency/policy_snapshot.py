"""Policy snapshots: the policies and agent status that a decision depends on, cached until the database changes."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from uuid import UUID

import msgspec

from sentryagent_idp.domain.agent import AgentStatus
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.trust_policy import (
    Allowed,
    Decision,
    DenialReason,
    Denied,
    TrustPolicy,
    decide,
)
from sentryagent_idp.ports import Transaction

_MOST_POLICIES = 10_000
"""The most policies in the cache; each takes about 1.8 KB."""

_Key = tuple[str, str, UUID | None]
"""Issuer, repository and agent."""


@dataclass(frozen=True, slots=True)
class PolicySnapshot:
    """The state that a decision on a repository's run depends on: its policies, and whether the agent is active."""

    issuer: str
    repository_key: str
    agent_id: UUID | None
    fingerprint: Hashable
    policies: Sequence[TrustPolicy]
    agent_is_active: bool
    service_ttls: Mapping[str, int | None] = field(default_factory=dict)
    """The `max_ttl` of the services that the policies grant, by identifier."""
    stranded: Sequence[TrustPolicy] = ()
    """Policies of the repository's name under unconfigured issuers: they match no run, but may explain a refusal."""

    is_of_default_issuer: bool = True
    """Whether the issuer is the default, which policies that name none have."""

    other_names: Sequence[str] = ()
    """Other names under which the run's repository has policies; empty if it has policies under its own name."""

    @property
    def size(self) -> int:
        """The number of policies in the snapshot."""
        return len(self.policies) + len(self.stranded)

    def is_current(self, fingerprints: Mapping[tuple[str, str], Hashable]) -> bool:
        """Whether the snapshot matches the database, which now has these fingerprints."""
        return fingerprints.get((self.issuer, self.repository_key)) == self.fingerprint

    def decide(self, identity: WorkflowIdentity, now: datetime, service: str | None = None) -> Decision:
        """Decide on a run of the repository that requests a token for a service or for our own API."""
        decision = self._decide(self.policies, identity, now, service)
        if isinstance(decision, Denied):
            return msgspec.structs.replace(
                decision,
                is_stranded=bool(self.stranded) and self._is_explained(decision, identity, now, service),
                is_of_default_issuer=self.is_of_default_issuer,
                other_names=tuple(self.other_names),
            )
        return decision

    def _decide(
        self, policies: Sequence[TrustPolicy], identity: WorkflowIdentity, now: datetime, service: str | None
    ) -> Decision:
        return decide(
            policies, identity, self.agent_id, now, agent_is_active=self.agent_is_active, service=service
        )

    def _is_explained(
        self, denied: Denied, identity: WorkflowIdentity, now: datetime, service: str | None
    ) -> bool:
        """Whether unconfigured issuers explain the refusal: no other policy exists, or theirs would allow the run."""
        if denied.reason is DenialReason.IDENTITY_CHANGED or not denied.agent_is_active:
            return False
        issuers = {policy.issuer for policy in self.stranded}
        runs = (msgspec.structs.replace(identity, issuer=issuer) for issuer in issuers)
        decisions = (self._decide(self.stranded, run, now, service) for run in runs)
        return not denied.evaluations or any(isinstance(decision, Allowed) for decision in decisions)


def read_snapshot(
    tx: Transaction, identity: WorkflowIdentity, agent_id: UUID | None, issuers: Sequence[str]
) -> PolicySnapshot:
    """Read policies and agent status in this transaction; `issuers` are the configured ones, the default first."""
    repository = (identity.issuer, identity.repository_key)
    # First: a concurrent change may then be in the policies and not in the fingerprint, but never the reverse.
    fingerprints = tx.policies.fingerprints([identity.repository_key])
    policies = tx.policies.for_repository(*repository)
    others = (name for name in fingerprints if name[0] not in issuers)
    # Even if the repository has policies: the duration of a refusal must not reveal that.
    names = tx.policies.names_of(identity.issuer, identity.repository_id)
    return PolicySnapshot(
        *repository,
        agent_id=agent_id,
        fingerprint=fingerprints.get(repository),
        policies=policies,
        agent_is_active=agent_is_active(tx, agent_id),
        service_ttls=tx.services.max_ttls({grant.service for policy in policies for grant in policy.grants}),
        is_of_default_issuer=identity.issuer == issuers[0],
        stranded=[policy for name in others for policy in tx.policies.for_repository(*name)],
        other_names=() if policies else names,
    )


def agent_is_active(tx: Transaction, agent_id: UUID | None) -> bool:
    """Whether the agent is active; true for a token without an agent."""
    return agent_id is None or tx.agents.status(agent_id) is AgentStatus.ACTIVE


class SnapshotCache:
    """A bounded, thread-safe cache of policy snapshots, which evicts the oldest first.

    A cached snapshot may be outdated: `GroupCommit` checks it before it commits an exchange.
    """

    def __init__(self) -> None:
        self._snapshots: dict[_Key, PolicySnapshot] = {}
        self._policies = 0
        self._lock = Lock()

    def get(self, identity: WorkflowIdentity, agent_id: UUID | None) -> PolicySnapshot | None:
        """The cached snapshot for the run's repository and the agent, or `None`."""
        return self._snapshots.get((identity.issuer, identity.repository_key, agent_id))

    def put(self, snapshot: PolicySnapshot) -> None:
        """Cache a snapshot."""
        key = (snapshot.issuer, snapshot.repository_key, snapshot.agent_id)
        with self._lock:
            self._forget(key)
            self._snapshots[key] = snapshot
            self._policies += snapshot.size
            while self._policies > _MOST_POLICIES:
                self._forget(next(iter(self._snapshots)))

    def _forget(self, key: _Key) -> None:
        forgotten = self._snapshots.pop(key, None)
        self._policies -= forgotten.size if forgotten else 0
