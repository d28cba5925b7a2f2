"""Who asks: the facts that GitHub signed about one run of one workflow."""

import re
from dataclasses import dataclass
from typing import Self

from server.claims import SignedClaims

GITHUB = "github"

_OWNER = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})"
_NAME = r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}"
_REPOSITORY = re.compile(rf"{_OWNER}/{_NAME}", re.ASCII)


def is_repository(name: str) -> bool:
    """Whether `name` has the form `owner/repo` that GitHub gives out (ASCII; federation-security B22)."""
    return _REPOSITORY.fullmatch(name) is not None


def repository_key(name: str) -> str:
    """The form in which repository names are compared and stored: GitHub's names have no case.

    Only for names that `is_repository` accepts: outside ASCII, lower case is not an identity
    (KELVIN SIGN lowers to `k`).
    """
    return name.lower()


@dataclass(frozen=True, slots=True)
class WorkflowIdentity:
    """One run of a workflow, as GitHub's token describes it.

    Attributes are GitHub's claims of the same name; `None` means that the claim is absent.
    `sub` is kept for the audit record only: its form changed in 2026 and repositories may customise it,
    so nothing is ever decided on it.
    """

    issuer: str
    sub: str
    jti: str
    iat: int
    exp: int
    repository: str
    repository_id: str
    repository_owner_id: str
    ref: str
    event_name: str
    ref_type: str | None = None
    sha: str | None = None
    environment: str | None = None
    workflow_ref: str | None = None
    job_workflow_ref: str | None = None
    actor_id: str | None = None
    runner_environment: str | None = None
    repository_visibility: str | None = None
    run_id: str | None = None
    run_attempt: str | None = None
    provider: str = GITHUB

    @classmethod
    def from_claims(cls, claims: SignedClaims) -> Self:
        """The identity in claims that were verified; the required ones are there and of the right type."""
        names = [name for name in cls.__dataclass_fields__ if name not in {"issuer", "provider"}]
        return cls(issuer=claims["iss"], **{name: claims[name] for name in names if name in claims})

    @property
    def repository_key(self) -> str:
        """The repository's name as policies store it."""
        return repository_key(self.repository)

    @property
    def subject(self) -> str:
        """The subject of a bootstrap token: the repository as GitHub spells it."""
        return f"repo:{self.repository}"
