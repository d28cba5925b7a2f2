"""Clients of the client-credentials grant: agents with a secret, and admin clients."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

MAX_NAME_LENGTH = 128


@dataclass(frozen=True, slots=True)
class AdminClient:
    """A program that administers the provider, or introspects the tokens of the `service` that it names.

    Its secret is stored as a hash, and a revoked one stays in the list.
    """

    client_id: str
    name: str
    scopes: tuple[str, ...]
    secret_hash: str
    created_at: datetime
    revoked_at: datetime | None = None
    service: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether its secret and its tokens count."""
        return self.revoked_at is None


@dataclass(frozen=True, slots=True)
class AuthenticatedClient:
    """A client that authenticated by its secret: `scopes` are the most that its tokens may have, `agent_id` is an agent's.

    The client of a `service`, known by its identifier, gets no tokens.
    """

    client_id: str
    scopes: tuple[str, ...]
    agent_id: UUID | None = None
    service: str | None = None


def name_problem(name: str) -> str | None:
    """What is wrong with the name of an admin client or of a person, or `None`."""
    if name.strip() == name and name.isprintable() and 1 <= len(name) <= MAX_NAME_LENGTH:
        return None
    return f"write 1 to {MAX_NAME_LENGTH} printable characters, without spaces at the ends"
