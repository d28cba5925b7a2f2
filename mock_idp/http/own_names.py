"""The host names under which the mock may be controlled: names that no attacker can point at this machine.

With DNS rebinding, a page of evil.example whose name suddenly resolves to 127.0.0.1 has the same origin as the mock,
and could mint tokens and read the log. The browser's `Host` header shows the name that it used.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

# Not in public DNS: RFC 6761 (localhost, test), RFC 6762 (local), ICANN's `internal` (Docker's too), Kubernetes' `svc`.
_PRIVATE: Final = (".localhost", ".test", ".local", ".internal", ".svc")


def is_own_name(host: str, names: Collection[str]) -> bool:
    """Whether `host`, a `Host` header, is an address, a private name, or one of `names`, those of the issuers."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    # A name with one label is that of a container, or comes from the hosts file.
    return "." not in name or name in names or name.endswith(_PRIVATE) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
