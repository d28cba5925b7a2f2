"""Whether the mock in this container answers: exit code 0 or 1. Run as a file, it needs nothing but the standard library."""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_SECONDS: Final = 2.0


def is_healthy(environment: Mapping[str, str]) -> bool:
    """Ask the mock that these variables (`MOCK_IDP_PORT`, `MOCK_IDP_TLS`) describe, on loopback."""
    port = int(environment.get("MOCK_IDP_PORT", "3001"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    if environment.get("MOCK_IDP_TLS"):
        # This asks whether it answers, not who it is.
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
