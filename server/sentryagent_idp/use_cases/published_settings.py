"""The settings that `serve` stores in the database for the command line: the issuer and the audience of our tokens."""

from typing import Any

from sentryagent_idp.ports import Store

_NAME = "provider"


def save(store: Store, *, public_url: str, token_audience: str) -> None:
    """Store the issuer and the audience of our tokens; raises `DatabaseUnavailable`."""
    settings = {"public_url": public_url, "token_audience": token_audience}
    with store.write() as tx:
        if tx.settings.get(_NAME) != settings:
            tx.settings.put(_NAME, settings)


def load(store: Store) -> dict[str, Any]:
    """Return the stored settings, empty if `serve` never ran; raises `DatabaseUnavailable`."""
    with store.read() as tx:
        return dict(tx.settings.get(_NAME) or {})
