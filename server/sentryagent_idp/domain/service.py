"""Services: the resource servers that accept our tokens (RFC 8707), and the scopes that policies grant at them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from sentryagent_idp.domain.scopes import ALL_SCOPES
from sentryagent_idp.domain.text import ascii_lower

MAX_IDENTIFIER_LENGTH = 255
MAX_SCOPES = 100
MAX_SCOPE_LENGTH = 100
MAX_GRANTS = 20
"""The most services that one policy may grant."""

URN_NAMESPACE = "urn:sentryagent:"
"""The prefix of the provider's own names, such as those of agents."""

_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
# A host has no percent-encoding: another spelling of the provider's own host would pass for a different host.
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{{0,4}})?(?:/{_PCHAR}*)*"
)
_URN = re.compile(rf"urn:[A-Za-z0-9][A-Za-z0-9-]{{0,30}}[A-Za-z0-9]:{_PCHAR}(?:{_PCHAR}|/)*")
_SCOPE = re.compile(rf"[\x21\x23-\x5b\x5d-\x7e]{{1,{MAX_SCOPE_LENGTH}}}")
_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class ServiceScope:
    """A scope of a service, and what it allows there."""

    name: str
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A resource server; `identifier` is the `aud` of its tokens and never changes, `max_ttl` is in seconds."""

    service_id: UUID
    identifier: str
    description: str | None
    scopes: tuple[ServiceScope, ...]
    max_ttl: int | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @property
    def scope_names(self) -> frozenset[str]:
        """The names of the service's scopes."""
        return frozenset(scope.name for scope in self.scopes)

    @property
    def in_audit(self) -> Mapping[str, Any]:
        """The fields of an audit record that identify the service."""
        return {"details": {"serviceId": str(self.service_id), "identifier": self.identifier}}

    def accepts(self, audience: str, issued_at: int) -> bool:
        """Whether a token with this `aud` and `iat` was issued for this service.

        A token from before the service's creation was issued for an earlier service with the same identifier.
        """
        return audience == self.identifier and issued_at >= int(self.created_at.timestamp())


@dataclass(frozen=True, slots=True)
class ServiceGrant:
    """The scopes that a policy gives at a service; `service` is its identifier."""

    service: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceFilter:
    """The filters of a list of services."""

    identifier: str | None = None


def identifier_problem(identifier: str, is_loopback: Callable[[str], bool]) -> str | None:
    """What is wrong with a service's identifier, or `None`; `is_loopback` says whether a host is this machine."""
    if len(identifier) > MAX_IDENTIFIER_LENGTH:
        return f"it is longer than {MAX_IDENTIFIER_LENGTH} characters"
    if _URN.fullmatch(identifier):
        return None
    found = _URL.fullmatch(identifier)
    if found is None or not _is_host(found["host"]) or _split(identifier) is None:
        return (
            "it must be an absolute https URI, such as https://deploy.example.com, or a urn:, "
            "without user, query or fragment"
        )
    if found["scheme"] == "http" and not is_loopback(found["host"].strip("[]")):
        return "use https; http is accepted for loopback addresses only"
    return None


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return True
    try:
        IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


def scopes_problem(names: Sequence[str]) -> str | None:
    """What is wrong with the names of a service's scopes, or `None`."""
    for name in names:
        if not _SCOPE.fullmatch(name):
            return f"a scope must be 1 to {MAX_SCOPE_LENGTH} printable ASCII characters without spaces, quotes or backslashes"
        # Compared case-insensitively: a reader of a policy must not mistake it for a scope of our own API.
        if ascii_lower(name) in ALL_SCOPES:
            return f"{name} is a scope of the provider itself; give the service's scope another name"
    return "duplicate scope; list each once" if len(set(names)) < len(names) else None


@dataclass(frozen=True, slots=True)
class OwnNames:
    """The names that no service may have: the provider's URL, its audiences and GitHub's issuers."""

    public_url: str
    others: tuple[str, ...]

    def problem(self, identifier: str) -> str | None:
        """Why the identifier would name the provider or an issuer, or `None`.

        It is compared in a normal form (RFC 3986, 6.2). Services are told apart by the exact identifier, but no token may
        exist that some verifier takes for one of the provider's own.
        """
        if ascii_lower(identifier).startswith(URN_NAMESPACE):
            return f"names that start with {URN_NAMESPACE} are reserved for the provider; choose another name"
        if _normal(identifier) in map(_normal, self.others):
            return "it is an audience of the provider or an issuer; write the service's own name"
        if _origin(identifier) == _origin(self.public_url):
            return "it is under the provider's own URL; write the service's own name"
        return None


def _split(uri: str) -> SplitResult | None:
    """The parts of a web URL with a valid port, or `None`."""
    try:
        parts = urlsplit(uri)
        is_web = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if is_web else None


def _origin(uri: str) -> tuple[str, str, int] | None:
    """Scheme, host and port (RFC 6454), or `None` if the URI is not a web URL."""
    parts = _split(uri)
    if parts is None:
        return None
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme]


def _normal(uri: str) -> tuple[object, str]:
    parts = _split(uri)
    return (None, ascii_lower(uri)) if parts is None else (_origin(uri), parts.path.rstrip("/"))


def grant_problem(grants: Sequence[ServiceGrant], known: Sequence[Service]) -> tuple[str, str] | None:
    """The first field of a policy's `grants` that names an unknown service or scope, and the problem; or `None`."""
    services = {service.identifier: service for service in known}
    for index, grant in enumerate(grants):
        service = services.get(grant.service)
        if service is None:
            return f"grants.{index}.service", "there is no service with this identifier; create it first"
        missing = next((name for name in grant.scopes if name not in service.scope_names), None)
        if missing is not None:
            known_names = ", ".join(scope.name for scope in service.scopes)
            return f"grants.{index}.scopes", f"the service has no scope {missing}; allowed: {known_names}"
    return None
