"""The scopes of access tokens (RFC 6749, 3.3)."""

from collections.abc import Iterable, Sequence

AGENTS_READ = "agents:read"
AGENTS_WRITE = "agents:write"
TOKENS_READ = "tokens:read"
AUDIT_READ = "audit:read"
POLICIES_READ = "policies:read"
POLICIES_WRITE = "policies:write"
SERVICES_READ = "services:read"
SERVICES_WRITE = "services:write"

ALL_SCOPES = (
    AGENTS_READ,
    AGENTS_WRITE,
    TOKENS_READ,
    AUDIT_READ,
    POLICIES_READ,
    POLICIES_WRITE,
    SERVICES_READ,
    SERVICES_WRITE,
)
"""The scopes of the provider itself; a service has none of these."""

BOOTSTRAP_SCOPES = (AGENTS_WRITE,)
DEFAULT_POLICY_SCOPES = (AGENTS_READ,)

FREELY_GRANTED = frozenset({AGENTS_READ, TOKENS_READ})
"""Scopes that a policy may give even if its author does not hold them."""

ONLY_ADMINS_GRANT = frozenset({POLICIES_WRITE, SERVICES_WRITE})
"""Scopes that only an admin's policy may give: a holder decides who becomes which agent and what tokens allow."""

_IMPLIED = {scope: read for scope in ALL_SCOPES if (read := scope.replace(":write", ":read")) != scope}


def parse(scope: str) -> tuple[str, ...]:
    """The scope tokens of a space-separated list, in order and without duplicates."""
    return tuple(dict.fromkeys(scope.split()))


def render(scopes: Sequence[str]) -> str:
    """The space-separated form used in tokens and responses."""
    return " ".join(scopes)


def satisfies(held: Iterable[str], required: str) -> bool:
    """Whether the held scopes include `required`; a `…:write` includes its `…:read`."""
    return any(required in {scope, _IMPLIED.get(scope)} for scope in held)
