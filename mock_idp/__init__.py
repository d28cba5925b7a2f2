"""A mock of GitHub's OIDC issuer and Actions runner, for tests, demos and development."""

import importlib.metadata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mock_idp.client import MockClient as MockClient
    from mock_idp.job import Job as Job
    from mock_idp.request_log import LogOverflowError as LogOverflowError
    from mock_idp.server import MockIdp as MockIdp
    from mock_idp.strict_fields import InvalidFieldError as InvalidFieldError

    __version__: str

_MODULES: Final = {
    "InvalidFieldError": "strict_fields",
    "Job": "job",
    "LogOverflowError": "request_log",
    "MockClient": "client",
    "MockIdp": "server",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the command line and the pytest plugin start without Flask."""
    if name == "__version__":
        return importlib.metadata.version("sentryagent-mock-idp")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
