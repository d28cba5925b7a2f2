"""What `serve` leaves in the database for the command line: under which names this provider issues tokens."""

from typing import Any

from sentryagent_idp.config import Settings
from sentryagent_idp.ports import Store

_FACT = "provider"
_SHARED = ("public_url", "token_audience")


def remember(store: Store, settings: Settings) -> None:
    """Write down the issuer and the audience of our tokens."""
    facts = {name: getattr(settings, name) for name in _SHARED}
    with store.write() as tx:
        if tx.facts.get(_FACT) != facts:
            tx.facts.put(_FACT, facts)


def recall(store: Store) -> dict[str, Any]:
    """The settings that `serve` wrote down; empty where it never ran."""
    with store.read() as tx:
        return dict(tx.facts.get(_FACT) or {})
