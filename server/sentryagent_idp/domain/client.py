"""Clients that authenticate with a secret: agents, admin clients and clients of services."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

MAX_NAME_LENGTH = 128


class ClientStatus(StrEnum):
    """Whether a client is accepted, and if not, why."""

    ACTIVE = "active"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Client:
    """A program that administers the provider or, if `service` is set, introspects the tokens of that service.

    Its secret is stored as a hash, and a revoked client is kept. After a rotation, the old secret may remain valid
    until `old_secret_until`. `last_used_at` is when the client last authenticated, to the minute.
    """

    client_id: str
    name: str
    scopes: tuple[str, ...]
    secret_hash: str
    created_at: datetime
    revoked_at: datetime | None = None
    service: str | None = None
    expires_at: datetime | None = None
    old_secret_hash: str | None = None
    old_secret_until: datetime | None = None
    last_used_at: datetime | None = None

    def status(self, now: datetime) -> ClientStatus:
        """Whether the client's secrets and tokens are accepted at `now`, and if not, why."""
        if self.revoked_at is not None:
            return ClientStatus.REVOKED
        is_over = self.expires_at is not None and now >= self.expires_at
        return ClientStatus.EXPIRED if is_over else ClientStatus.ACTIVE

    def secret_hashes(self, now: datetime) -> tuple[str, ...]:
        """The hashes of the secrets valid at `now`: the current one and, after a rotation, perhaps the old one."""
        old, until = self.old_secret_hash, self.old_secret_until
        return (self.secret_hash, old) if old and until and now < until else (self.secret_hash,)


@dataclass(frozen=True, slots=True)
class AuthenticatedClient:
    """A client that authenticated with its secret; `scopes` are the most that its tokens may have.

    `agent_id` is set for an agent. A client with a `service` (its identifier) gets no tokens. No token outlives
    `expires_at`.
    """

    client_id: str
    scopes: tuple[str, ...]
    agent_id: UUID | None = None
    service: str | None = None
    expires_at: datetime | None = None


def name_problem(name: str) -> str | None:
    """What is wrong with the name of an admin client or of a person, or `None`."""
    if name.strip() == name and name.isprintable() and 1 <= len(name) <= MAX_NAME_LENGTH:
        return None
    return f"write 1 to {MAX_NAME_LENGTH} printable characters, without spaces at the ends"
