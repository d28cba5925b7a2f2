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
"""What a policy may give although its author does not hold it."""

ONLY_ADMINS_GRANT = frozenset({POLICIES_WRITE, SERVICES_WRITE})
"""What a policy may give only if an admin wrote it: its holder decides who becomes which agent, and what tokens are good for."""

_IMPLIED = {scope: read for scope in ALL_SCOPES if (read := scope.replace(":write", ":read")) != scope}


def parse(scope: str) -> tuple[str, ...]:
    """The scope tokens of a space-separated list, each once, in their order."""
    return tuple(dict.fromkeys(scope.split()))


def render(scopes: Sequence[str]) -> str:
    """The space-separated form that tokens and responses carry."""
    return " ".join(scopes)


def satisfies(held: Iterable[str], required: str) -> bool:
    """Whether the held scopes allow what `required` stands for; a `…:write` includes its `…:read`."""
    return any(required in {scope, _IMPLIED.get(scope)} for scope in held)
