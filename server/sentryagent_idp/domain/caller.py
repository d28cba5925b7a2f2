"""The caller of our API, as its verified access token describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from sentryagent_idp.domain import scopes

BOOTSTRAP_PREFIX = "repo:"
ADMIN_PREFIX = "admin-"
"""Has no colon, which separates id and secret in HTTP Basic (RFC 7617, 2). No agent's id, a UUID, begins with it."""

SERVICE_PREFIX = "service-"
"""The prefix of the id of a service's client, which is never the subject of a token."""

ADMIN_CLI = "admin-cli"
"""The subject of the command line's tokens; every other admin is an admin client."""


class CallerKind(StrEnum):
    """The three kinds of access token that the provider issues."""

    ADMIN = "admin"
    BOOTSTRAP = "bootstrap"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of one of our access tokens; `provenance` is the run that it was issued to, empty if it was not a run.

    `audience` is the token's `aud`, `person` the one for whom an admin token was issued on the command line.
    """

    subject: str
    scopes: tuple[str, ...]
    jti: str
    iat: int
    exp: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    audience: str = ""
    person: str | None = None

    @property
    def kind(self) -> CallerKind:
        """The kind of token, by its `sub`: `repo:…`, `admin-…`, or an agent's id."""
        if self.subject.startswith(BOOTSTRAP_PREFIX):
            return CallerKind.BOOTSTRAP
        return CallerKind.ADMIN if self.subject.startswith(ADMIN_PREFIX) else CallerKind.AGENT

    @property
    def is_admin(self) -> bool:
        """Whether the token was issued on the command line or to an admin client."""
        return self.kind is CallerKind.ADMIN

    @property
    def agent_id(self) -> UUID | None:
        """The id of the agent that the token was issued for, or `None` if it is not an agent's."""
        return UUID(self.subject) if self.kind is CallerKind.AGENT else None

    @property
    def admin_client_id(self) -> str | None:
        """The id of the admin client that the token was issued to, if any."""
        return self.subject if self.is_admin and self.subject != ADMIN_CLI else None

    @property
    def repository_id(self) -> str | None:
        """GitHub's immutable id of the repository that a bootstrap token was issued to."""
        return self.provenance.get("repository_id") if self.kind is CallerKind.BOOTSTRAP else None

    @property
    def issuer(self) -> str | None:
        """The issuer of the run that a bootstrap token was issued to, if several were configured at that time."""
        return self.provenance.get("issuer") if self.kind is CallerKind.BOOTSTRAP else None

    def holds(self, scope: str) -> bool:
        """Whether the token's scopes include `scope`."""
        return scopes.satisfies(self.scopes, scope)
