"""Who asks: the facts that GitHub signed about one run of one workflow."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NewType, Self

SignedClaims = NewType("SignedClaims", Mapping[str, Any])
"""Claims whose signature, issuer, audience and times were checked; made only by `github.id_token` and `tokens.access_token`."""

CLOCK_LEEWAY_SECONDS = 30
"""How far GitHub's clock and ours may be apart; the replay store keeps a `jti` at least this long after `exp`."""

GITHUB = "github"

# `_` stands before the short code in the names of Enterprise Managed Users.
_OWNER = r"[A-Za-z0-9][A-Za-z0-9_-]{0,38}"
_NAME = r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}"
_REPOSITORY = re.compile(rf"{_OWNER}/{_NAME}", re.ASCII)
_WORKFLOW_FILE = re.compile(r"[^/]+\.ya?ml", re.DOTALL)
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

_BRANCHES = "refs/heads/"
_TAGS = "refs/tags/"
_WORKFLOWS = "/.github/workflows/"


def is_repository(name: str) -> bool:
    """Whether `name` has the form `owner/repo` that GitHub gives out (ASCII; federation-security B22)."""
    return _REPOSITORY.fullmatch(name) is not None


def is_workflow_file(name: str) -> bool:
    """Whether `name` is the name of a workflow file, without its folder."""
    return _WORKFLOW_FILE.fullmatch(name) is not None


def ascii_lower(text: str) -> str:
    """The text with its ASCII letters, and nothing else, in lower case.

    `str.lower` would make other letters alike, too: KELVIN SIGN becomes `k` (federation-security A12).
    """
    return text.translate(_ASCII_LOWER)


def repository_key(name: str) -> str:
    """The form in which repository names are compared and stored: GitHub's names have no case."""
    return ascii_lower(name)


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
    workflow_sha: str | None = None
    job_workflow_ref: str | None = None
    job_workflow_sha: str | None = None
    actor_id: str | None = None
    runner_environment: str | None = None
    repository_visibility: str | None = None
    run_id: str | None = None
    run_attempt: str | None = None
    check_run_id: str | None = None
    provider: str = GITHUB

    @classmethod
    def from_claims(cls, claims: SignedClaims) -> Self:
        """The identity in claims that were verified; the required ones are there and of the right type."""
        names = [name for name in cls.__dataclass_fields__ if name not in {"issuer", "provider"}]
        return cls(issuer=claims["iss"], **{name: claims[name] for name in names if name in claims})

    @classmethod
    def hypothetical(cls, issuer: str, claims: Mapping[str, Any]) -> Self:
        """A run that might be, for simulations: its claims are nobody's word, and no token is issued to it."""
        return cls(issuer=issuer, sub="", jti="", iat=0, exp=0, **claims)

    @property
    def repository_key(self) -> str:
        """The repository's name as policies store it."""
        return repository_key(self.repository)

    @property
    def subject(self) -> str:
        """The subject of a bootstrap token: the repository as GitHub spells it."""
        return f"repo:{self.repository}"

    @property
    def branch(self) -> str | None:
        """The branch that the run is of: both `ref` and `ref_type` must say so (federation-security A5)."""
        return self._ref_name(_BRANCHES, "branch")

    @property
    def tag(self) -> str | None:
        """The tag that the run is of."""
        return self._ref_name(_TAGS, "tag")

    @property
    def workflow_file(self) -> str | None:
        """The file name of the workflow that was started (not of a reusable one that it calls).

        Branches and files may have `@` and `.yml` in their names, so `workflow_ref` is not searched for a
        separator: its head must be this repository and its tail this ref (federation-security A14).
        """
        repository, _, rest = (self.workflow_ref or "").partition(_WORKFLOWS)
        revision = self.ref or self.sha
        name = rest.removesuffix(f"@{revision}")
        if not revision or name == rest or repository_key(repository) != self.repository_key:
            return None
        return name if is_workflow_file(name) else None

    def _ref_name(self, prefix: str, ref_type: str) -> str | None:
        if self.ref_type != ref_type or not self.ref.startswith(prefix):
            return None
        return self.ref.removeprefix(prefix)
