"""Replay protection: each ID token is exchanged only once (B6)."""

from datetime import UTC, datetime, timedelta

from sentryagent_idp.domain.identity import CLOCK_LEEWAY_SECONDS, WorkflowIdentity
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.errors import InvalidOidcToken
from sentryagent_idp.ports import Transaction

_MARGIN = timedelta(seconds=CLOCK_LEEWAY_SECONDS + 60)
"""Added to `exp`, so that a used `jti` is kept longer than its token can be verified (B7)."""


def used(identity: WorkflowIdentity) -> UsedToken:
    """The row by which the database remembers that the run's token was exchanged."""
    return UsedToken(identity.issuer, identity.jti, datetime.fromtimestamp(identity.exp, UTC) + _MARGIN)


def check_unused(tx: Transaction, identity: WorkflowIdentity) -> None:
    """Raise `InvalidOidcToken` (`replayed`) if the run's token was already exchanged."""
    if tx.used_tokens.contains(identity.issuer, identity.jti):
        raise _replayed()


def use_up(tx: Transaction, identity: WorkflowIdentity) -> None:
    """Mark the run's token as used; of concurrent requests, only one succeeds. Raises the same as `check_unused`."""
    if not tx.used_tokens.claim(used(identity)):
        raise _replayed()


def _replayed() -> InvalidOidcToken:
    return InvalidOidcToken(
        "replayed", "This ID token was already exchanged; request a new one for each exchange."
    )
