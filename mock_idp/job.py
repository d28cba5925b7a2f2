"""A job of a workflow run: what a user chooses, and what follows from it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from mock_idp.claims import CLAIMS_SUPPORTED, stable_id, stable_sha
from mock_idp.strict_fields import InvalidFieldError, read_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

ID_TOKEN_MODES: Final = ("write", "none", "fork")
VISIBILITIES: Final = ("public", "private", "internal")
RUNNER_ENVIRONMENTS: Final = ("github-hosted", "self-hosted")
MERGE_REF_EVENTS: Final = ("pull_request", "pull_request_review", "pull_request_review_comment")
PULL_REQUEST_EVENTS: Final = (*MERGE_REF_EVENTS, "pull_request_target")

# Stands for "the event decides"; no git reference can be spelled so, while an empty ref is a real one.
REF_OF_EVENT: Final = "?"
_DEFAULT_REFS: Final = {
    "merge_group": "refs/heads/gh-readonly-queue/main/pr-1-0123456789abcdef0123456789abcdef01234567",
    "release": "refs/tags/v1.0.0",
}
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
# No blanks anywhere: these values become words of `$(mock-idp env --format act)`.
_PATTERNS: Final[Mapping[str, tuple[str, str]]] = {
    "repository": (rf"{_NAME}/[A-Za-z0-9._-]+", "must be OWNER/REPO"),
    "ref": (
        rf"[^\s?*\[\\~^:]*|{re.escape(REF_OF_EVENT)}",
        "must be a git reference such as refs/heads/main, or a branch name",
    ),
    **dict.fromkeys(("head_ref", "base_ref"), (r"[^\s?*\[\\~^:]*", "must be a branch name")),
    **dict.fromkeys(("environment", "workflow_name"), (r"[^\x00-\x1f\x7f]*", "must be one line of text")),
    **dict.fromkeys(("run_number", "run_attempt"), (r"[1-9][0-9]*", "must be a positive number as a string")),
    "event": (r"[a-z_]*", "must be the name of an event such as push or workflow_dispatch"),
    "actor": (r"[A-Za-z0-9_-]+(\[bot\])?", "must be the login of a user or app"),
    "workflow": (r"[^\s/@:]+\.ya?ml", "must be a file name under .github/workflows such as ci.yml"),
    "called_workflow": (
        r"([^\s/@]+/[^\s/@]+/\.github/workflows/[^\s/@]+\.ya?ml@[^\s@]+)?",
        "must be OWNER/REPO/.github/workflows/FILE.yml@REF",
    ),
    **dict.fromkeys(("sha", "called_workflow_sha"), (r"([0-9a-f]{40})?", "must be 40 hex digits")),
    "enterprise": (r"[A-Za-z0-9-]*", "must be the slug of an enterprise"),
    **dict.fromkeys(
        (
            "repository_id", "repository_owner_id", "actor_id", "enterprise_id", "run_id", "check_run_id",
            "pull_request",
        ),
        (r"([1-9][0-9]*)?", "must be a decimal number as a string"),
    ),
}  # fmt: skip
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "visibility": VISIBILITIES,
    "runner_environment": RUNNER_ENVIRONMENTS,
    "id_token": ID_TOKEN_MODES,
}


def camel(name: str) -> str:
    """The JSON name of a field: `id_token` is `idToken`."""
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


@dataclass(frozen=True)
class Job:
    """One job. An empty string asks for the value that follows from the others.

    Ids follow from names and stay the same for one name. `ref` may be a plain branch name; for events of pull
    requests a branch is the head branch, and the job's own ref becomes `refs/pull/N/merge`.
    Raises InvalidFieldError for a value that GitHub could not have.
    """

    repository: str = "octo-org/hello-agent"
    ref: str = REF_OF_EVENT
    event: str = ""
    environment: str = ""
    actor: str = "octocat"
    workflow: str = "ci.yml"
    workflow_name: str = ""
    sha: str = ""
    id_token: str = "write"
    repository_id: str = ""
    repository_owner_id: str = ""
    actor_id: str = ""
    run_id: str = ""
    run_number: str = "1"
    run_attempt: str = "1"
    check_run_id: str = ""
    visibility: str = "public"
    runner_environment: str = "github-hosted"
    ref_protected: bool = False
    pull_request: str = ""
    head_ref: str = ""
    base_ref: str = ""
    called_workflow: str = ""
    called_workflow_sha: str = ""
    enterprise: str = ""
    enterprise_id: str = ""
    immutable_sub: bool = False
    include_claim_keys: tuple[str, ...] = ()
    repository_properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (pattern, reason) in _PATTERNS.items():
            if not re.fullmatch(pattern, getattr(self, name)):
                raise InvalidFieldError(camel(name), reason)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidFieldError(camel(name), f"must be one of {', '.join(choices)}")
        self._settle_event()
        self._settle_names()

    def _set(self, **values: str) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _settle_event(self) -> None:
        if self.event == "workflow_call":
            # A called workflow's token carries the event of its caller.
            raise InvalidFieldError(
                "event",
                "is the caller's in a called workflow, such as push; the called workflow is an option of its own",
            )
        if self.id_token == "fork" and self.event not in {"", "pull_request"}:
            raise InvalidFieldError("idToken", "is fork only for the event pull_request")
        event = self.event or ("pull_request" if self.id_token == "fork" else "push")
        self._set(event=event)
        ref = self.ref if self.ref.startswith("refs/") or not self.ref else f"refs/heads/{self.ref}"
        if event in PULL_REQUEST_EVENTS:
            self._settle_pull_request("" if self.ref == REF_OF_EVENT else ref)
        else:
            self._refuse_pull_request_fields()
            self._set(ref=_DEFAULT_REFS.get(event, "refs/heads/main") if self.ref == REF_OF_EVENT else ref)

    def _settle_pull_request(self, ref: str) -> None:
        """GitHub checks a merge commit out for pull requests; `pull_request_target` stays on the base branch."""
        merge = re.fullmatch(r"refs/pull/([1-9][0-9]*)/merge", ref)
        branch = ref.removeprefix("refs/heads/")
        if ref and not merge and branch == ref:
            raise InvalidFieldError("ref", "of a pull request must be a branch or refs/pull/N/merge")
        number = self.pull_request or (merge[1] if merge else "1")
        if merge and merge[1] != number:
            raise InvalidFieldError("pullRequest", "must be the number in `ref`")
        on_base = self.event == "pull_request_target"
        if on_base and merge:
            raise InvalidFieldError("ref", "of pull_request_target is the base branch")
        base_ref = self.base_ref or (branch if on_base and branch else "main")
        head_ref = self.head_ref or (branch if branch and not merge and not on_base else "feature")
        ref = f"refs/heads/{base_ref}" if on_base else f"refs/pull/{number}/merge"
        self._set(pull_request=number, base_ref=base_ref, head_ref=head_ref, ref=ref)

    def _refuse_pull_request_fields(self) -> None:
        for name in ("pull_request", "head_ref", "base_ref"):
            if getattr(self, name):
                raise InvalidFieldError(
                    camel(name), f"belongs to a pull request, not to the event {self.event}"
                )

    def _settle_names(self) -> None:
        self._check_claim_keys()
        if (self.called_workflow_sha and not self.called_workflow) or (
            self.enterprise_id and not self.enterprise
        ):
            lone = "called_workflow_sha" if self.called_workflow_sha else "enterprise_id"
            raise InvalidFieldError(camel(lone), f"needs `{camel(lone.rsplit('_', 1)[0])}`")
        sha = self.sha or stable_sha(f"{self.repository}@{self.ref}")
        called = stable_sha(self.called_workflow) if self.called_workflow else sha
        self._set(
            sha=sha,
            called_workflow_sha=self.called_workflow_sha or called,
            repository_id=self.repository_id or stable_id(self.repository),
            repository_owner_id=self.repository_owner_id or stable_id(self.owner),
            actor_id=self.actor_id or stable_id(self.actor),
            run_id=self.run_id or stable_id(f"{self.repository} run"),
            check_run_id=self.check_run_id or stable_id(f"{self.repository} check run"),
            workflow_name=self.workflow_name or f".github/workflows/{self.workflow}",
            enterprise_id=self.enterprise_id or (stable_id(self.enterprise) if self.enterprise else ""),
        )

    def _check_claim_keys(self) -> None:
        for key in self.include_claim_keys:
            if key not in {"repo", "context", *CLAIMS_SUPPORTED} and not key.startswith("repo_property_"):
                raise InvalidFieldError("includeClaimKeys", f"has {key!r}, which is no claim")
        if "environment" in self.include_claim_keys and not self.environment:
            raise InvalidFieldError("environment", "is required, since `includeClaimKeys` has it")

    @property
    def owner(self) -> str:
        """The login before the slash."""
        return self.repository.partition("/")[0]

    @property
    def name(self) -> str:
        """The repository's name after the slash."""
        return self.repository.partition("/")[2]

    @property
    def ref_type(self) -> str:
        """`tag` for tags, else `branch`, also for pull requests."""
        return "tag" if self.ref.startswith("refs/tags/") else "branch"

    @property
    def ref_name(self) -> str:
        """The short name of the ref: branch, tag, or `N/merge`."""
        return re.sub(r"^refs/(heads|tags|pull)/", "", self.ref)

    @property
    def workflow_ref(self) -> str:
        """The caller's workflow file at this ref, or at the commit where the ref is empty."""
        return f"{self.repository}/.github/workflows/{self.workflow}@{self.ref or self.sha}"

    @property
    def may_request_id_token(self) -> bool:
        """Whether the job has `permissions: id-token: write`; pull requests from forks never do."""
        return self.id_token == "write"

    def as_json(self) -> dict[str, Any]:
        """The JSON fields from which `read_job` makes an equal job."""
        values = {camel(item.name): getattr(self, item.name) for item in fields(self)}
        if not self.called_workflow:
            # It is this commit then, and cannot be chosen.
            del values["calledWorkflowSha"]
        if self.event not in PULL_REQUEST_EVENTS:
            values = {name: value for name, value in values.items() if name not in _PULL_REQUEST_FIELDS}
        return values | {
            "includeClaimKeys": list(self.include_claim_keys),
            "repositoryProperties": dict(self.repository_properties),
        }


_PULL_REQUEST_FIELDS: Final = ("pullRequest", "headRef", "baseRef")
_KIND_OF_TYPE: Final = {"bool": "true or false", "tuple[str, ...]": "an array of strings"}
JOB_FIELDS: Final[Mapping[str, str]] = {
    camel(item.name): "an object of strings"
    if item.name == "repository_properties"
    else _KIND_OF_TYPE.get(str(item.type), "a string")
    for item in fields(Job)
}
_NAME_OF_FIELD: Final = {camel(item.name): item.name for item in fields(Job)}


def read_job(body: object) -> Job:
    """A job from the JSON fields of `JOB_FIELDS`. Raises InvalidFieldError."""
    values: dict[str, Any] = {
        _NAME_OF_FIELD[name]: tuple(value) if isinstance(value, list) else value
        for name, value in read_fields(body, JOB_FIELDS).items()
    }
    if values.get("ref") == REF_OF_EVENT:
        raise InvalidFieldError("ref", _PATTERNS["ref"][1])
    return Job(**values)
