"""The container's health check: exit code 0 if the mock responds, else 1; a file that runs without the package."""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_SECONDS: Final = 2.0
# The command reads the variable with click, which is not available here.
_FALSE: Final = frozenset({"", "0", "f", "false", "n", "no", "off"})


def is_healthy(environment: Mapping[str, str]) -> bool:
    """Return whether the mock that these variables (`MOCK_IDP_PORT`, `MOCK_IDP_TLS`) describe responds on loopback."""
    port = int(environment.get("MOCK_IDP_PORT") or 3001)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    if environment.get("MOCK_IDP_TLS", "").strip().lower() not in _FALSE:
        # The check asks whether the mock responds, not whether its certificate is trusted.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 (the same machine, and nothing is sent)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS, context=context)
    try:
        connection.request("GET", "/_mock/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not is_healthy(os.environ))
