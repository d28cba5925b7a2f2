"""What this process read of repositories and agents, held until the database says otherwise."""

from datetime import datetime
from threading import Lock
from uuid import UUID

from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.trust_policy import TrustPolicy, is_use_due
from sentryagent_idp.use_cases.decision import Standing

_MOST_POLICIES = 10_000
"""Each takes about 1.8 KB."""

_Key = tuple[str, str, UUID | None]
"""Issuer, repository and agent."""


class Standings:
    """A bounded memory for many threads; the oldest go first.

    What is held may be outdated: `sentryagent_idp.use_cases.ledger` finds out before anything rests on it.
    """

    def __init__(self) -> None:
        self._held: dict[_Key, Standing] = {}
        self._policies = 0
        self._noted: dict[UUID, datetime] = {}
        self._lock = Lock()

    def held(self, identity: WorkflowIdentity, agent_id: UUID | None) -> Standing | None:
        """How the run's repository and the agent stood when they were read last."""
        return self._held.get((identity.issuer, identity.repository_key, agent_id))

    def hold(self, standing: Standing) -> None:
        """Hold what was read."""
        key = (standing.issuer, standing.repository_key, standing.agent_id)
        with self._lock:
            self._forget(key)
            self._held[key] = standing
            self._policies += len(standing.policies)
            while self._policies > _MOST_POLICIES:
                self._forget(next(iter(self._held)))

    def is_use_due(self, policy: TrustPolicy, now: datetime) -> bool:
        """Whether the use of the policy is to be noted now."""
        return is_use_due(self._noted.get(policy.id, policy.last_used_at), now)

    def note_use(self, policy_id: UUID, now: datetime) -> None:
        """Remember that the use of the policy was noted."""
        with self._lock:
            if len(self._noted) >= _MOST_POLICIES:
                self._noted.clear()
            self._noted[policy_id] = now

    def _forget(self, key: _Key) -> None:
        forgotten = self._held.pop(key, None)
        self._policies -= len(forgotten.policies) if forgotten else 0
