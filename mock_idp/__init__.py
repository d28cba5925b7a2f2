"""GitHub's OIDC issuer and Actions runner on a laptop: for tests, demos and development."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mock_idp.server import MockIdp as MockIdp


def __getattr__(name: str) -> Any:
    """`MockIdp`, imported on first use: the command line and the pytest plugin start without Flask."""
    if name != "MockIdp":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mock_idp.server import MockIdp

    return MockIdp
