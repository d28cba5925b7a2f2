"""The identity of a workflow run: the claims that GitHub signed for it."""

import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, NewType, Self

import msgspec

from sentryagent_idp.domain.text import ascii_lower

SignedClaims = NewType("SignedClaims", Mapping[str, Any])
"""Claims whose signature, issuer, audience and times are verified, by `github.id_token` or `tokens.access_token` only."""

CLOCK_LEEWAY_SECONDS = 30
"""How far GitHub's clock and ours may differ; a used `jti` is kept at least this long after `exp`."""

GITHUB = "github"

# In the names of Enterprise Managed Users, `_` precedes the short code.
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}", re.ASCII)
_WORKFLOW_FILE = re.compile(r"[^/]+\.ya?ml", re.DOTALL)


def is_repository(name: str) -> bool:
    """Whether `name` has the form `owner/repo` of GitHub's names (ASCII; B22)."""
    return _REPOSITORY.fullmatch(name) is not None


def is_workflow_file(name: str) -> bool:
    """Whether `name` is the name of a workflow file, without its folder."""
    return _WORKFLOW_FILE.fullmatch(name) is not None


def repository_key(name: str) -> str:
    """The form in which repository names are compared and stored: GitHub's names are case-insensitive."""
    return ascii_lower(name)


class WorkflowIdentity(msgspec.Struct, frozen=True):
    """One run of a workflow, as GitHub's token describes it.

    Attributes are GitHub's claims of the same name; `None` means that the claim is absent. `properties` are the
    repository's custom properties, without the prefix that their claims have. `sub` is for the audit and explanations
    only: its form changed in 2026 and repositories may customise it, so no decision depends on it.
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
        """Build the identity from verified claims, among which the required ones are present and of the right type."""
        return cls(issuer=claims["iss"], **_read(claims))

    @classmethod
    def of_refused(cls, claims: Mapping[str, Any]) -> Self:
        """Build the identity of a genuine token that is refused, for the audit; absent claims are empty."""
        return cls(**{**_NOTHING, **_read(claims), "issuer": claims["iss"]})

    @classmethod
    def hypothetical(cls, issuer: str, claims: Mapping[str, Any]) -> Self:
        """Build the identity of a hypothetical run, for simulations: its claims are unverified, and it gets no token."""
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
        """The run's branch, or `None`: both `ref` and `ref_type` must say that it is one (A5)."""
        return self._ref_name("refs/heads/", "branch")

    @property
    def tag(self) -> str | None:
        """The run's tag, or `None`."""
        return self._ref_name("refs/tags/", "tag")

    @property
    def workflow_file(self) -> str | None:
        """The file name of the workflow that was started (not of a reusable one that it calls).

        Names of branches and files may contain `@` and `.yml`, so `workflow_ref` is not searched for a
        separator: it must begin with this repository and end with this ref (A14).
        """
        repository, _, rest = (self.workflow_ref or "").partition("/.github/workflows/")
        revision = self.ref or self.sha
        name = rest.removesuffix(f"@{revision}")
        if not revision or name == rest or repository_key(repository) != self.repository_key:
            return None
        return name if is_workflow_file(name) else None

    def claims(self) -> dict[str, str]:
        """The run's text claims, by GitHub's names, without absent ones."""
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
"""Attributes that hold all claims with a prefix, by their names without it."""

_CLAIMS = [
    claim
    for claim in msgspec.structs.fields(WorkflowIdentity)
    if claim.name not in {"issuer", "provider", *CLAIM_PREFIXES}
]
TEXT_CLAIMS = tuple(claim.name for claim in _CLAIMS if claim.type is not int)
OPTIONAL_CLAIMS = tuple(claim.name for claim in _CLAIMS if claim.default is None)
"""The claims that a token may lack."""

_NOTHING = {claim.name: "" if claim.type is str else 0 for claim in _CLAIMS if claim.required}
_NAMES = tuple(claim.name for claim in _CLAIMS)
_texts = attrgetter(*TEXT_CLAIMS)


def _read(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Read the attributes from claims; claims without an attribute are ignored, because GitHub adds some every year."""
    read = {name: claims[name] for name in _NAMES if name in claims}
    for attribute, prefix in CLAIM_PREFIXES.items():
        read[attribute] = {
            name.removeprefix(prefix): value for name, value in claims.items() if name.startswith(prefix)
        }
    return read
