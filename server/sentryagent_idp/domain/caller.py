"""Who calls our API: the facts of a verified access token of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from sentryagent_idp.domain import scopes

BOOTSTRAP_PREFIX = "repo:"
ADMIN_PREFIX = "admin-"
"""No colon, which HTTP Basic has between id and secret (RFC 7617, 2). An agent's id is a UUID and never starts so."""

SERVICE_PREFIX = "service-"
"""Of a service's client, which never is the subject of a token."""

ADMIN_CLI = "admin-cli"
"""The command line; every other administrator is an admin client."""


class CallerKind(StrEnum):
    """The three kinds of access token that the provider issues."""

    ADMIN = "admin"
    BOOTSTRAP = "bootstrap"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of an access token of ours, which is for `audience`; `provenance` is the run it was issued to, empty for an admin.

    `person` is for whom an admin's token was made on the command line.
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
        """The kind of token that has this `sub`: `repo:…`, `admin-…`, or an agent's id."""
        if self.subject.startswith(BOOTSTRAP_PREFIX):
            return CallerKind.BOOTSTRAP
        return CallerKind.ADMIN if self.subject.startswith(ADMIN_PREFIX) else CallerKind.AGENT

    @property
    def is_admin(self) -> bool:
        """Whether the token was made by the command line or for an admin client."""
        return self.kind is CallerKind.ADMIN

    @property
    def agent_id(self) -> UUID | None:
        """The agent that the token speaks for, if it does."""
        return UUID(self.subject) if self.kind is CallerKind.AGENT else None

    @property
    def admin_client_id(self) -> str | None:
        """The admin client that the token was issued to, if one was."""
        return self.subject if self.is_admin and self.subject != ADMIN_CLI else None

    @property
    def repository_id(self) -> str | None:
        """The repository (GitHub's immutable id) that a bootstrap token speaks for."""
        return self.provenance.get("repository_id") if self.kind is CallerKind.BOOTSTRAP else None

    @property
    def issuer(self) -> str | None:
        """The issuer of the run that a bootstrap token was issued to, if there were several at that time."""
        return self.provenance.get("issuer") if self.kind is CallerKind.BOOTSTRAP else None

    def holds(self, scope: str) -> bool:
        """Whether the token's scopes allow what `scope` stands for."""
        return scopes.satisfies(self.scopes, scope)
