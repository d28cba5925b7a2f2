"""What the stored policies say about a run: the one way from the database to `decide`."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.trust_policy import Decision, TrustPolicy, decide
from sentryagent_idp.errors import InvalidOidcToken
from sentryagent_idp.ports import Transaction
from sentryagent_idp.use_cases.authentication import agent_is_active


@dataclass(frozen=True, slots=True)
class Standing:
    """All that a decision on the runs of a repository rests on: its policies, and the state of the agent."""

    issuer: str
    repository_key: str
    agent_id: UUID | None
    fingerprint: Hashable
    policies: Sequence[TrustPolicy]
    agent_is_active: bool

    def is_current(self, fingerprints: Mapping[tuple[str, str], Hashable]) -> bool:
        """Whether the database, which has these fingerprints, still says the same."""
        return fingerprints.get((self.issuer, self.repository_key)) == self.fingerprint

    def decide(self, identity: WorkflowIdentity, now: datetime) -> Decision:
        """The decision on a run of the repository."""
        return decide(self.policies, identity, self.agent_id, now, agent_is_active=self.agent_is_active)


def standing_in(tx: Transaction, identity: WorkflowIdentity, agent_id: UUID | None) -> Standing:
    """How a run's repository and an agent stand in this transaction."""
    repository = (identity.issuer, identity.repository_key)
    return Standing(
        *repository,
        agent_id=agent_id,
        # First: what others change from here on is in the policies, but never only in the fingerprint.
        fingerprint=tx.policies.fingerprints([identity.repository_key]).get(repository),
        policies=tx.policies.for_repository(*repository),
        agent_is_active=agent_is_active(tx, agent_id),
    )


def check_unused(tx: Transaction, identity: WorkflowIdentity) -> None:
    """Raise `InvalidOidcToken` (`replayed`) where the run's token was exchanged already."""
    if tx.used_tokens.contains(identity.issuer, identity.jti):
        raise replayed()


def replayed() -> InvalidOidcToken:
    """The refusal of a token that was exchanged already."""
    return InvalidOidcToken(
        "replayed", "This GitHub token was exchanged already; request a new one for each exchange."
    )
