"""What the stored policies say about a run: the one way from the database to `decide`."""

from datetime import datetime
from uuid import UUID

from server.domain.identity import WorkflowIdentity
from server.domain.trust_policy import Decision, decide
from server.errors import InvalidOidcToken
from server.ports import Transaction
from server.use_cases.authentication import agent_is_active


def decide_in(tx: Transaction, identity: WorkflowIdentity, agent_id: UUID | None, now: datetime) -> Decision:
    """The decision on a run, by the policies and the agent as they are in this transaction."""
    return decide(
        tx.policies.for_repository(identity.issuer, identity.repository_key),
        identity,
        agent_id,
        now,
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
