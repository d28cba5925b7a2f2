"""A job of a workflow run: the options that a user sets, and the values derived from them. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from mock_idp.strict_fields import InvalidFieldError, nearest, read_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

PULL_REQUEST_EVENTS: Final = (
    "pull_request", "pull_request_review", "pull_request_review_comment", "pull_request_target",
)  # fmt: skip
# Source: GitHub's page "Events that trigger workflows"; `dynamic` starts GitHub's own workflows, such as Dependabot's.
EVENTS: Final = frozenset(
    {
        "branch_protection_rule", "check_run", "check_suite", "create", "delete", "deployment", "deployment_status",
        "discussion", "discussion_comment", "dynamic", "fork", "gollum", "image_version", "issue_comment", "issues",
        "label", "merge_group", "milestone", "page_build", "project", "project_card", "project_column", "public", "push",
        "registry_package", "release",
        "repository_dispatch", "schedule", "status", "watch", "workflow_dispatch", "workflow_run", *PULL_REQUEST_EVENTS,
    }
)  # fmt: skip
# In the order of GitHub's discovery document.
CLAIMS_SUPPORTED: Final = (
    "sub", "aud", "exp", "iat", "iss", "jti", "nbf", "ref", "sha", "repository", "repository_id", "repository_owner",
    "repository_owner_id", "enterprise", "enterprise_id", "run_id", "run_number", "run_attempt", "actor", "actor_id",
    "workflow", "workflow_ref", "workflow_sha", "head_ref", "base_ref", "event_name", "ref_type", "ref_protected",
    "environment", "environment_node_id", "job_workflow_ref", "job_workflow_sha", "repository_visibility",
    "runner_environment", "check_run_id",
)  # fmt: skip

# Means "the event's default ref": no git reference is spelled `?`, while a run can have an empty ref.
REF_OF_EVENT: Final = "?"
_DEFAULT_REFS: Final = {
    "merge_group": "refs/heads/gh-readonly-queue/main/pr-1-0123456789abcdef0123456789abcdef01234567",
    "release": "refs/tags/v1.0.0",
}

# A pattern, and the error for a value that does not match. Most patterns exclude spaces, because `$(mock-idp env
# --format act)` passes these values as words of a shell command.
_Syntax = tuple[str, str]
_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
_REPOSITORY: Final = (rf"{_NAME}/[A-Za-z0-9._-]+", "must be OWNER/REPO")
# A branch or tag name that git accepts (git-check-ref-format).
_GIT_NAME: Final = r"(?![./])(?!.*(?:\.\.|//|/\.|@\{|\.lock(?:/|$)|[./]$))[^\s\x00-\x1f\x7f?*\[\\~^:]+"
# A test that expects a refusal would pass for the wrong reason with a ref such as `refs/tag/v1`.
_MISSPELT: Final = r"refs/(?:(?:head|tag|branch|branches|pulls)/|(?:heads|tags)$)"
_REF: Final = (
    rf"(?!{_MISSPELT})(?!refs/pull/(?![1-9][0-9]*/(?:merge|head)$))(?:{_GIT_NAME})?|{re.escape(REF_OF_EVENT)}",
    "must be refs/heads/BRANCH, refs/tags/TAG, refs/pull/N/merge or a branch name that git allows",
)
_BRANCH: Final = (rf"(?:{_GIT_NAME})?", "must be a branch name that git allows")
_LINE: Final = (r"[^\x00-\x1f\x7f]*", "must be one line of text")
_NUMBER: Final = (r"[1-9][0-9]*", "must be a positive whole number in digits")
_ID: Final = (r"([1-9][0-9]{0,18})?", "must be a whole number in digits")
_SHA: Final = (r"([0-9a-f]{40})?", "must be 40 hex digits")
_JOB_ID: Final = (r"[A-Za-z_][A-Za-z0-9_-]*", "must be the key of a job, such as build or deploy-prod")
_ACTOR: Final = (r"[A-Za-z0-9_-]+(\[bot\])?", "must be the login of a user or app")
_WORKFLOW: Final = (r"[^\s/@:]+\.ya?ml", "must be a file name under .github/workflows such as ci.yml")
_CALLED_WORKFLOW: Final = (
    r"([^\s/@]+/[^\s/@]+/\.github/workflows/[^\s/@]+\.ya?ml@[^\s@]+)?",
    "must be OWNER/REPO/.github/workflows/FILE.yml@REF",
)
_ENTERPRISE: Final = (r"[A-Za-z0-9-]*", "must be the slug of an enterprise")
_PROPERTY_NAME: Final = r"[A-Za-z0-9_$#-]{1,75}"


def stable_id(name: str) -> str:
    """Return a decimal id derived from `name`, ignoring case: like GitHub's, it is always the same for one name."""
    return str(10_000_000 + int(hashlib.sha256(name.lower().encode()).hexdigest(), 16) % 990_000_000)


def stable_sha(text: str) -> str:
    """Return a commit id (40 hex digits) derived from `text`."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def camel(name: str) -> str:
    """Return the JSON name of a field: `id_token` becomes `idToken`."""
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


def _option(
    help_text: str,
    default: Any = "",
    syntax: _Syntax | None = None,
    *,
    choices: tuple[str, ...] = (),
    flag: str = "",
) -> Any:
    """Declare a job option: its `--help` text, its default and the values that GitHub allows.

    `flag` is the option's name on the command line if it differs from the field's name.
    """
    if choices:
        syntax = "|".join(map(re.escape, choices)), f"must be one of {', '.join(choices)}"
    metadata = {"help": help_text, "syntax": syntax, "choices": choices, "flag": flag}
    if default is dict:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Job:
    """A job. An empty string means that the value is derived from the others.

    Ids are derived from names, so that one name always has the same id. `ref` may be a plain branch name. For pull
    request events a branch is the head branch, and the job's own ref becomes `refs/pull/N/merge`; for
    pull_request_target it is the base branch. Raises InvalidFieldError for a value that GitHub could not have.
    """

    repository: str = _option("OWNER/REPO", "octo-org/hello-agent", _REPOSITORY)
    ref: str = _option(
        "git reference or branch name [default: the event's ref, else refs/heads/main]", REF_OF_EVENT, _REF
    )
    event: str = _option("name of the event [default: push]", "")
    environment: str = _option("deployment environment of the job", "", _LINE)
    actor: str = _option("login of the user or app that started the run", "octocat", _ACTOR)
    workflow: str = _option("file name under .github/workflows", "ci.yml", _WORKFLOW)
    workflow_name: str = _option("the workflow's `name:`", "", _LINE)
    job_id: str = _option("key of the job under `jobs:`; sets GITHUB_JOB", "job", _JOB_ID)
    sha: str = _option("commit, 40 hex digits", "", _SHA)
    id_token: str = _option(
        "the job's `id-token` permission; fork: a pull request from a fork, which never has it",
        "write",
        choices=("write", "none", "fork"),
    )
    repository_id: str = _option("overrides the id derived from the name", "", _ID)
    repository_owner_id: str = _option("overrides the id derived from the name", "", _ID)
    actor_id: str = _option("overrides the id derived from the login", "", _ID)
    run_id: str = _option("id of the workflow run", "", _ID)
    run_number: str = _option("number of the run", "1", _NUMBER)
    run_attempt: str = _option("number of the attempt", "1", _NUMBER)
    check_run_id: str = _option("id of the job's check run", "", _ID)
    visibility: str = _option(
        "visibility of the repository", "public", choices=("public", "private", "internal")
    )
    runner_environment: str = _option(
        "who hosts the runner", "github-hosted", choices=("github-hosted", "self-hosted")
    )
    ref_protected: bool = _option("the ref has branch protection or a ruleset", default=False)
    pull_request: str = _option("number of the pull request [default: 1]", "", _ID)
    head_ref: str = _option("head branch of the pull request [default: feature]", "", _BRANCH)
    base_ref: str = _option("base branch of the pull request [default: main]", "", _BRANCH)
    called_workflow: str = _option(
        "reusable workflow: OWNER/REPO/.github/workflows/FILE.yml@REF", "", _CALLED_WORKFLOW
    )
    called_workflow_sha: str = _option("commit of the reusable workflow", "", _SHA)
    enterprise: str = _option("slug of the enterprise that the repository belongs to", "", _ENTERPRISE)
    enterprise_id: str = _option("overrides the id derived from the slug", "", _ID)
    immutable_sub: bool = _option(
        "`sub` with ids, the form of repositories created since July 2026", default=False
    )
    include_claim_keys: tuple[str, ...] = _option(
        "key of a customised `sub`, such as repo, context or job_workflow_ref; repeatable, in order",
        (),
        flag="include-claim-key",
    )
    repository_properties: Mapping[str, str] = _option(
        "custom property of the repository; sets `repo_property_NAME`; repeatable",
        dict,
        flag="repository-property",
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            syntax = item.metadata["syntax"]
            if syntax and not re.fullmatch(syntax[0], getattr(self, item.name)):
                raise InvalidFieldError(camel(item.name), syntax[1])
        self._settle_event()
        self._settle_names()

    def _set(self, **values: str) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _settle_event(self) -> None:
        if self.event == "workflow_call":
            # The token of a called workflow carries the event of its caller.
            raise InvalidFieldError(
                "event",
                "must be the caller's event, such as push; a called workflow does not have its own",
            )
        if self.id_token == "fork" and self.event not in {"", "pull_request"}:
            raise InvalidFieldError("idToken", "can be fork only for the event pull_request")
        event = self.event or ("pull_request" if self.id_token == "fork" else "push")
        if event not in EVENTS:
            # A misspelled event would get the claims of a push, and a test of a refusal would test an acceptance.
            raise InvalidFieldError(
                "event", f"must be the name of an event that starts workflows{nearest(event, EVENTS)}"
            )
        self._set(event=event)
        ref = self.ref if self.ref.startswith("refs/") or not self.ref else f"refs/heads/{self.ref}"
        if event in PULL_REQUEST_EVENTS:
            self._settle_pull_request("" if self.ref == REF_OF_EVENT else ref)
        else:
            self._refuse_pull_request_fields()
            self._set(ref=_DEFAULT_REFS.get(event, "refs/heads/main") if self.ref == REF_OF_EVENT else ref)

    def _settle_pull_request(self, ref: str) -> None:
        """Set a pull request's fields: its ref is the merge commit, but the base branch for `pull_request_target`."""
        merge = re.fullmatch(r"refs/pull/([1-9][0-9]*)/merge", ref)
        branch = ref.removeprefix("refs/heads/")
        if ref and not merge and branch == ref:
            raise InvalidFieldError("ref", "of a pull request must be a branch or refs/pull/N/merge")
        number = self.pull_request or (merge[1] if merge else "1")
        if merge and merge[1] != number:
            raise InvalidFieldError("pullRequest", "must be the number in `ref`")
        on_base = self.event == "pull_request_target"
        if on_base and merge:
            raise InvalidFieldError("ref", "of pull_request_target must be the base branch")
        base_ref = self.base_ref or (branch if on_base and branch else "main")
        head_ref = self.head_ref or (branch if branch and not merge and not on_base else "feature")
        ref = f"refs/heads/{base_ref}" if on_base else f"refs/pull/{number}/merge"
        self._set(pull_request=number, base_ref=base_ref, head_ref=head_ref, ref=ref)

    def _refuse_pull_request_fields(self) -> None:
        for name in ("pull_request", "head_ref", "base_ref"):
            if getattr(self, name):
                raise InvalidFieldError(
                    camel(name), f"is only for pull requests, not for the event {self.event}"
                )

    def _settle_names(self) -> None:
        self._check_claim_keys()
        if (self.called_workflow_sha and not self.called_workflow) or (
            self.enterprise_id and not self.enterprise
        ):
            lone = "called_workflow_sha" if self.called_workflow_sha else "enterprise_id"
            raise InvalidFieldError(camel(lone), f"requires `{camel(lone.rsplit('_', 1)[0])}`")
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
        for name in self.repository_properties:
            if not re.fullmatch(_PROPERTY_NAME, name):
                raise InvalidFieldError(
                    "repositoryProperties", f"contains {name!r}, which is not a valid property name"
                )
        for key in self.include_claim_keys:
            if key not in {"repo", "context", *CLAIMS_SUPPORTED} and not key.startswith("repo_property_"):
                raise InvalidFieldError("includeClaimKeys", f"contains {key!r}, which is not a claim")
        if "environment" in self.include_claim_keys and not self.environment:
            raise InvalidFieldError("environment", "is required because `includeClaimKeys` contains it")

    @property
    def owner(self) -> str:
        """The repository's owner, before the slash."""
        return self.repository.partition("/")[0]

    @property
    def name(self) -> str:
        """The repository's name after the slash."""
        return self.repository.partition("/")[2]

    @property
    def ref_type(self) -> str:
        """`tag` for a tag, `branch` for everything else, including pull requests."""
        return "tag" if self.ref.startswith("refs/tags/") else "branch"

    @property
    def ref_name(self) -> str:
        """The short name of the ref: branch, tag, or `N/merge`."""
        return re.sub(r"^refs/(heads|tags|pull)/", "", self.ref)

    @property
    def workflow_ref(self) -> str:
        """The caller's workflow file at the job's ref, or at its commit if the ref is empty."""
        return f"{self.repository}/.github/workflows/{self.workflow}@{self.ref or self.sha}"

    @property
    def may_request_id_token(self) -> bool:
        """Whether the job has `permissions: id-token: write`; pull requests from forks never do."""
        return self.id_token == "write"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON fields from which `read_job` creates an equal job."""
        values = {camel(item.name): getattr(self, item.name) for item in fields(self)}
        if not self.called_workflow:
            # Without a called workflow this is the job's own commit, and cannot be chosen.
            del values["calledWorkflowSha"]
        if self.event not in PULL_REQUEST_EVENTS:
            values = {name: value for name, value in values.items() if name not in _PULL_REQUEST_FIELDS}
        return values | {
            "includeClaimKeys": list(self.include_claim_keys),
            "repositoryProperties": dict(self.repository_properties),
        }


_PULL_REQUEST_FIELDS: Final = ("pullRequest", "headRef", "baseRef")
_KINDS: Final = {
    "str": "a string",
    "bool": "true or false",
    "tuple[str, ...]": "an array of strings",
    "Mapping[str, str]": "an object of strings",
}
JOB_FIELDS: Final[Mapping[str, str]] = {camel(item.name): _KINDS[str(item.type)] for item in fields(Job)}
_NAME_OF_FIELD: Final = {camel(item.name): item.name for item in fields(Job)}


def choices_of(field: str) -> tuple[str, ...]:
    """Return the allowed values of a `Job` field that has a fixed list."""
    choices: tuple[str, ...] = Job.__dataclass_fields__[field].metadata["choices"]
    return choices


def read_job(body: object) -> Job:
    """Read a job from the JSON fields of `JOB_FIELDS`. Raises InvalidFieldError."""
    values: dict[str, Any] = {
        _NAME_OF_FIELD[name]: tuple(value) if isinstance(value, list) else value
        for name, value in read_fields(body, JOB_FIELDS).items()
    }
    if values.get("ref") == REF_OF_EVENT:
        raise InvalidFieldError("ref", _REF[1])
    return Job(**values)


def make_job(given: Job | Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None) -> Job:
    """Create a job from a `Job`, a mapping or options, with field names or JSON names.

    None counts as absent. Raises InvalidFieldError, also for a claim given as an option.
    """
    if isinstance(given, Job):
        if options:
            raise InvalidFieldError("job", "is a Job already; give options of a job or a Job, not both")
        return given
    read_fields({"job": given}, {"job": "an object"})
    fields_given = {camel(name): value for name, value in {**(given or {}), **(options or {})}.items()}
    for name in fields_given:
        if name not in JOB_FIELDS and name in _CLAIMS:
            claim = _CLAIMS[name]
            raise InvalidFieldError(
                claim, f"is a claim, not an option of a job; give claims={{{claim!r}: …}}"
            )
    return read_job({name: list(it) if isinstance(it, tuple) else it for name, it in fields_given.items()})


_CLAIMS: Final = {camel(name): name for name in CLAIMS_SUPPORTED}
