"""Who asks: the facts that GitHub signed about one run of one workflow."""

import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, NewType, Self

import msgspec

from sentryagent_idp.domain.text import ascii_lower

SignedClaims = NewType("SignedClaims", Mapping[str, Any])
"""Claims whose signature, issuer, audience and times were checked; made only by `github.id_token` and `tokens.access_token`."""

CLOCK_LEEWAY_SECONDS = 30
"""How far GitHub's clock and ours may be apart; the replay store keeps a `jti` at least this long after `exp`."""

GITHUB = "github"

# `_` stands before the short code in the names of Enterprise Managed Users.
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}", re.ASCII)
_WORKFLOW_FILE = re.compile(r"[^/]+\.ya?ml", re.DOTALL)


def is_repository(name: str) -> bool:
    """Whether `name` has the form `owner/repo` that GitHub gives out (ASCII; federation-security B22)."""
    return _REPOSITORY.fullmatch(name) is not None


def is_workflow_file(name: str) -> bool:
    """Whether `name` is the name of a workflow file, without its folder."""
    return _WORKFLOW_FILE.fullmatch(name) is not None


def repository_key(name: str) -> str:
    """The form in which repository names are compared and stored: GitHub's names have no case."""
    return ascii_lower(name)


class WorkflowIdentity(msgspec.Struct, frozen=True):
    """One run of a workflow, as GitHub's token describes it.

    Attributes are GitHub's claims of the same name; `None` means that the claim is absent. `properties` are the
    repository's custom properties, whose claims have a prefix before their names.
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
    ref_protected: str | None = None
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
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)
    provider: str = GITHUB

    @classmethod
    def from_claims(cls, claims: SignedClaims) -> Self:
        """The identity in claims that were verified; the required ones are there and of the right type."""
        return cls(issuer=claims["iss"], **_read(claims))

    @classmethod
    def of_refused(cls, claims: Mapping[str, Any]) -> Self:
        """The run of a token that is genuine and yet refused, for the audit: what it lacks is empty."""
        return cls(**{**_NOTHING, **_read(claims), "issuer": claims["iss"]})

    @classmethod
    def hypothetical(cls, issuer: str, claims: Mapping[str, Any]) -> Self:
        """A run that might be, for simulations: its claims are nobody's word, and no token is issued to it."""
        return cls(**{**_read(claims), "issuer": issuer, "sub": "", "jti": "", "iat": 0, "exp": 0})

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
        return self._ref_name("refs/heads/", "branch")

    @property
    def tag(self) -> str | None:
        """The tag that the run is of."""
        return self._ref_name("refs/tags/", "tag")

    @property
    def workflow_file(self) -> str | None:
        """The file name of the workflow that was started (not of a reusable one that it calls).

        Branches and files may have `@` and `.yml` in their names, so `workflow_ref` is not searched for a
        separator: its head must be this repository and its tail this ref (federation-security A14).
        """
        repository, _, rest = (self.workflow_ref or "").partition("/.github/workflows/")
        revision = self.ref or self.sha
        name = rest.removesuffix(f"@{revision}")
        if not revision or name == rest or repository_key(repository) != self.repository_key:
            return None
        return name if is_workflow_file(name) else None

    def claims(self) -> dict[str, str]:
        """The texts among the run's claims, by GitHub's names; without those that it lacks."""
        named = zip(TEXT_CLAIMS, _texts(self), strict=True)
        texts = {name: value for name, value in named if value is not None}
        for attribute, prefix in CLAIM_PREFIXES.items():
            texts |= {f"{prefix}{name}": value for name, value in getattr(self, attribute).items()}
        return texts

    def _ref_name(self, prefix: str, ref_type: str) -> str | None:
        if self.ref_type != ref_type or not self.ref.startswith(prefix):
            return None
        return self.ref.removeprefix(prefix)


CLAIM_PREFIXES = {"properties": "repo_property_"}
"""Attributes that hold all claims with a prefix, by the rest of their names."""

_CLAIMS = [
    claim
    for claim in msgspec.structs.fields(WorkflowIdentity)
    if claim.name not in {"issuer", "provider", *CLAIM_PREFIXES}
]
TEXT_CLAIMS = tuple(claim.name for claim in _CLAIMS if claim.type is not int)
OPTIONAL_CLAIMS = tuple(claim.name for claim in _CLAIMS if claim.default is None)
"""What a token may lack."""

_NOTHING = {claim.name: "" if claim.type is str else 0 for claim in _CLAIMS if claim.required}
_NAMES = tuple(claim.name for claim in _CLAIMS)
_texts = attrgetter(*TEXT_CLAIMS)


def _read(claims: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that claims give; claims that no attribute is for are left unread: GitHub adds some every year."""
    read = {name: claims[name] for name in _NAMES if name in claims}
    for attribute, prefix in CLAIM_PREFIXES.items():
        read[attribute] = {
            name.removeprefix(prefix): value for name, value in claims.items() if name.startswith(prefix)
        }
    return read
