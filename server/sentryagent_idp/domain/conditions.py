"""The conditions of a policy, each declared once, as a field of `Conditions`.

The fields of request bodies, records and tables, the comparison with a run, the explanation of a refusal and the
suggested policy are derived from these declarations. A new condition needs a field here, an attribute of
`WorkflowIdentity` for its claim, and a migration for its column.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sentryagent_idp.domain import patterns, policy_syntax
from sentryagent_idp.domain.condition_kinds import Condition, FailedCondition, Flag, Listed, Mapped
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.text import ascii_lower

DEFAULT_DENIED_EVENTS = ("pull_request", "pull_request_target", "workflow_run", "issue_comment")
"""Events that a stranger can trigger, some of them with the default branch as their ref (A6)."""

_RUNNERS = ("github-hosted", "self-hosted")
_VISIBILITIES = ("public", "private", "internal")
_MAX_PROPERTIES = 20
_MAX_VALUES = 100
_PROPERTY = re.compile(r"(?!repo_property_)[A-Za-z0-9_$#-]{1,75}", re.ASCII)

_PULL_REQUEST = (
    "The run is for a pull request (refs/pull/…), which `branch` and `tag` never match. To allow pull requests, add a "
    "policy without `branch` and `tag`, and list pull_request in `events`."
)
_NO_REF = "The run has no ref (deployments of a commit have none); start it from a branch or a tag."


def _branch_hint(wanted: str, run: WorkflowIdentity) -> str:
    if run.branch is not None:
        return _other_name("branch", wanted, run.branch)
    if run.tag is not None and patterns.matches(wanted, run.tag):
        return f"The run is for the tag {run.tag}, not for the branch of that name; add a policy with `tag`."
    if run.tag is not None:
        return "The run is for a tag, which `branch` never matches; add a policy with `tag` (a pattern such as v* also matches later tags)."
    return _ref_hint(run)


def _tag_hint(wanted: str, run: WorkflowIdentity) -> str:
    if run.tag is not None:
        return _other_name("tag", wanted, run.tag)
    if run.branch is not None and patterns.matches(wanted, run.branch):
        return f"The run is for the branch {run.branch}, not for the tag of that name; add a policy with `branch`."
    if run.branch is not None:
        return "The run is for a branch, which `tag` never matches; add a policy with `branch`."
    return _ref_hint(run)


def _other_name(kind: str, wanted: str, actual: str) -> str:
    if wanted.casefold() == actual.casefold():
        return f"They differ only in letter case, and {kind} names are case-sensitive; correct the policy."
    if patterns.matches(wanted.replace("*", "**"), actual):
        return "A single `*` does not match `/`; use `**` in the policy to match it."
    return f"Run from a {kind} that the policy covers, or add a policy for {actual}."


def _ref_hint(run: WorkflowIdentity) -> str:
    if run.ref.startswith("refs/pull/"):
        return _PULL_REQUEST
    if run.ref_type is None:
        return "The token has no claim `ref_type`, which is needed to tell a branch from a tag."
    return (
        _NO_REF
        if not run.ref
        else "The run's ref is neither a branch nor a tag; start the run from one of them."
    )


def _environment_hint(wanted: str, run: WorkflowIdentity) -> str:
    if run.environment is None:
        return (
            f"The job has no environment; add `environment: {wanted}` to it. "
            # People see the environment in `sub` and take that for the cause.
            "(It replaces the ref in `sub`, but policies compare claims, not `sub`, so `branch` still applies.)"
        )
    if wanted.casefold() == run.environment.casefold():
        return "They differ only in the case of letters outside ASCII, which are compared case-sensitively; correct the policy."
    return f"Run the job in the environment {wanted}, or add a policy for this one."


def _workflow_hint(wanted: str, run: WorkflowIdentity) -> str:
    if f"/.github/workflows/{wanted}@" in (run.job_workflow_ref or ""):
        return (
            f"`workflow` is the file that was started, but {wanted} is a reusable workflow that it calls; "
            f"set `calledWorkflow` to {run.job_workflow_ref} instead."
        )
    if "*" in wanted:
        return "`workflow` does not support wildcards; write a policy for each file."
    if wanted.casefold() == (run.workflow_file or "").casefold():
        return "They differ only in letter case, and file names are case-sensitive; correct the policy."
    return "Start the workflow that the policy names, or add a policy for this one."


def _called_workflow_hint(wanted: str, run: WorkflowIdentity) -> str:
    actual = run.job_workflow_ref or ""
    if wanted == run.workflow_ref:
        return (
            "This is the workflow that was started: set `workflow` to its file name. `calledWorkflow` is the reusable "
            f"workflow that runs the job, here {actual or 'none'}."
        )
    if wanted.casefold() == actual.casefold():
        return "They differ only in letter case, which counts; copy the claim `job_workflow_ref` into the policy."
    if wanted.partition("@")[0] == actual.partition("@")[0]:
        return "The file matches, but the version after `@` does not; call the version that the policy names."
    return "The claim `job_workflow_ref` must match exactly; call the workflow that the policy names."


def _ref_protected_hint(_wanted: bool, run: WorkflowIdentity) -> str:
    if run.ref_protected is None:
        return (
            "The token has no claim `ref_protected`, so the ref may not be protected; "
            "remove `refProtected` from the policy if GitHub does not send this claim."
        )
    return f"Protect {run.ref or 'the ref'} with a branch protection rule or a ruleset on GitHub, or run from a protected ref."


def _properties_problem(wanted: Mapping[str, Sequence[str]]) -> str | None:
    if not 1 <= len(wanted) <= _MAX_PROPERTIES:
        return f"write 1 to {_MAX_PROPERTIES} properties, or leave it out"
    if not all(map(_PROPERTY.fullmatch, wanted)):
        return "write a property's name as on GitHub, without repo_property_: 1 to 75 characters from A-Z a-z 0-9 _ - $ #"
    if not all(1 <= len(values) <= _MAX_VALUES for values in wanted.values()):
        return f"write 1 to {_MAX_VALUES} values for each property"
    if any("," in value for values in wanted.values() for value in values):
        return "a value contains a comma, which separates the values of a multi-select; list each of them separately"
    problems = (policy_syntax.text("value", value) for values in wanted.values() for value in values)
    return next(filter(None, problems), None)


def _properties_hint(wanted: Mapping[str, Sequence[str]], run: WorkflowIdentity) -> str:
    missing = next((name for name in wanted if name not in run.properties), None)
    if missing is not None:
        return (
            f"The token has no claim repo_property_{missing}; give the repository a value for this property, "
            "and have the organisation add the property to its OIDC tokens."
        )
    return (
        "Each property must have a listed value, and every value of a multi-select must be listed; "
        "correct the properties of the repository on GitHub, or add their values to the policy."
    )


def _declared(condition: Condition) -> Any:
    return field(default=None, metadata={"condition": condition})


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions that a run of the repository must meet, all of them; `None` means no condition."""

    branch: str | None = _declared(
        Condition(
            actual="branch",
            claims=("ref", "ref_type"),
            problem=policy_syntax.branch,
            matches=patterns.matches,
            hint=_branch_hint,
        )
    )
    tag: str | None = _declared(
        Condition(
            actual="tag",
            claims=("ref", "ref_type"),
            problem=policy_syntax.tag,
            matches=patterns.matches,
            hint=_tag_hint,
        )
    )
    # An absent claim matches nothing: a job without an environment did not pass any protection rules (A11).
    environment: str | None = _declared(
        Condition(
            actual="environment",
            problem=policy_syntax.environment,
            matches=lambda wanted, actual: ascii_lower(wanted) == ascii_lower(actual),
            canonical=ascii_lower,
            hint=_environment_hint,
        )
    )
    workflow: str | None = _declared(
        Condition(
            actual="workflow_file",
            claims=("workflow_ref",),
            problem=policy_syntax.workflow,
            hint=_workflow_hint,
        )
    )
    called_workflow: str | None = _declared(
        Condition(
            actual="job_workflow_ref", problem=policy_syntax.called_workflow, hint=_called_workflow_hint
        )
    )
    actor_ids: tuple[str, ...] | None = _declared(
        Listed(
            actual="actor_id",
            problem=policy_syntax.numeric_id,
            hint=lambda *_: (
                "The policy lists who may start the run, by numeric id (claim `actor_id`), not by login; "
                "add the id to allow it."
            ),
        )
    )
    runner_environment: str | None = _declared(
        Condition(
            actual="runner_environment",
            problem=policy_syntax.one_of(*_RUNNERS),
            words=_RUNNERS,
            hint=lambda wanted, _: f"Run the job on a {wanted} runner (`runs-on`).",
        )
    )
    visibility: str | None = _declared(
        Condition(
            actual="repository_visibility",
            problem=policy_syntax.one_of(*_VISIBILITIES),
            words=_VISIBILITIES,
            hint=lambda wanted, _: (
                f"The policy applies only while the repository is {wanted}; "
                "change `visibility` if the new value is intended."
            ),
        )
    )
    ref_protected: bool | None = _declared(Flag(actual="ref_protected", hint=_ref_protected_hint))
    properties: Mapping[str, tuple[str, ...]] | None = _declared(
        Mapped(actual="properties", problem=_properties_problem, hint=_properties_hint)
    )
    events: tuple[str, ...] | None = _declared(
        Listed(
            actual="event_name",
            problem=policy_syntax.event,
            hint=lambda _, run: (
                f"Add {run.event_name} to the policy's `events`, or start the run with one of the listed events."
            ),
        )
    )

    @property
    def names_ref(self) -> bool:
        """Whether the conditions require a branch or a tag."""
        return self.branch is not None or self.tag is not None


def json_name(name: str) -> str:
    """A field's name in the API, in camelCase."""
    head, *rest = name.split("_")
    return head + "".join(map(str.title, rest))


DECLARED: Mapping[str, Condition] = {
    declared.name: replace(declared.metadata["condition"], json_name=json_name(declared.name))
    for declared in fields(Conditions)
}
"""All conditions, by field name."""


def wanted_by(conditions: Conditions) -> dict[str, Any]:
    """The values of the conditions that are set, by field name."""
    return {name: value for name in DECLARED if (value := getattr(conditions, name)) is not None}


def by_json_name(conditions: Conditions) -> dict[str, Any]:
    """The values of the conditions that are set, by JSON name."""
    return {DECLARED[name].json_name: value for name, value in wanted_by(conditions).items()}


def canonical(conditions: Conditions) -> dict[str, Any]:
    """The conditions that are set, by JSON name, in a form that is the same for all equal conditions."""
    wanted = wanted_by(conditions).items()
    return {DECLARED[name].json_name: DECLARED[name].canonical(value) for name, value in wanted}


def failures(conditions: Conditions, run: WorkflowIdentity) -> tuple[FailedCondition, ...]:
    """The conditions that the run does not meet, including the implicit ones on its ref and its event."""
    compared = (DECLARED[name].failure(wanted, run) for name, wanted in wanted_by(conditions).items())
    failed = (_ref_failure(conditions, run), *compared, _event_failure(conditions, run))
    return tuple(failure for failure in failed if failure is not None)


def _ref_failure(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    """Check the ref: without `branch` and `tag`, a policy covers all of these, and pull requests if `events` has them."""
    if conditions.names_ref or run.ref.startswith(("refs/heads/", "refs/tags/")):
        return None
    if run.ref.startswith("refs/pull/") and "pull_request" in (conditions.events or ()):
        return None
    return FailedCondition("ref", "a branch or a tag", run.ref, _ref_hint(run))


def _event_failure(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    """Check the event: a policy without `events` covers all events except those that a stranger can trigger."""
    if conditions.events is not None or run.event_name not in DEFAULT_DENIED_EVENTS:
        return None
    expected = f"any event but {', '.join(DEFAULT_DENIED_EVENTS)}"
    hint = (
        f"Anyone can trigger {run.event_name}, so a policy must list it in `events`. List it only if the workflow "
        "does not run their code."
    )
    return FailedCondition("events", expected, run.event_name, hint)
