"""What a policy may ask of a run, and whether a run has it: one small check for each condition."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sentryagent_idp.domain import hints, patterns
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.text import ascii_lower

DEFAULT_DENIED_EVENTS = ("pull_request", "pull_request_target", "workflow_run", "issue_comment")
"""Events that a stranger can cause, some of them with the default branch as their ref (federation-security A6)."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a run must be besides being of the repository; `None` asks for nothing, all are ANDed."""

    branch: str | None = None
    tag: str | None = None
    environment: str | None = None
    workflow: str | None = None
    called_workflow: str | None = None
    actor_ids: tuple[str, ...] | None = None
    runner_environment: str | None = None
    visibility: str | None = None
    events: tuple[str, ...] | None = None

    @property
    def names_ref(self) -> bool:
        """Whether the run must be of a certain branch or tag."""
        return self.branch is not None or self.tag is not None


JSON_NAMES = {
    "branch": "branch",
    "tag": "tag",
    "environment": "environment",
    "workflow": "workflow",
    "called_workflow": "calledWorkflow",
    "actor_ids": "actorIds",
    "runner_environment": "runnerEnvironment",
    "visibility": "visibility",
    "events": "events",
}
"""The members of `Conditions` as the API spells them."""


@dataclass(frozen=True, slots=True)
class FailedCondition:
    """What a policy wants, what the run has, and what to do about the difference."""

    condition: str
    expected: str | bool | datetime | tuple[str, ...] | None
    actual: str | bool | datetime | None
    hint: str


def members(conditions: Conditions) -> dict[str, str | tuple[str, ...]]:
    """The conditions that are set, by their JSON names."""
    values = {json_name: getattr(conditions, name) for name, json_name in JSON_NAMES.items()}
    return {json_name: value for json_name, value in values.items() if value is not None}


def canonical(conditions: Conditions) -> dict[str, str | list[str]]:
    """The conditions that are set, in the one form that all equal ones have."""
    return {name: _canonical(name, value) for name, value in members(conditions).items()}


def _canonical(name: str, value: str | tuple[str, ...]) -> str | list[str]:
    if isinstance(value, tuple):
        return sorted(set(value))
    return ascii_lower(value) if name == "environment" else value


def failures(conditions: Conditions, run: WorkflowIdentity) -> tuple[FailedCondition, ...]:
    """The conditions that the run does not fulfil, the implicit ones about its ref and its event included."""
    return tuple(failed for check in _CHECKS if (failed := check(conditions, run)) is not None)


def _branch(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    wanted = conditions.branch
    if wanted is None or (run.branch is not None and patterns.matches(wanted, run.branch)):
        return None
    return FailedCondition("branch", wanted, run.branch or run.ref, hints.branch(wanted, run))


def _tag(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    wanted = conditions.tag
    if wanted is None or (run.tag is not None and patterns.matches(wanted, run.tag)):
        return None
    return FailedCondition("tag", wanted, run.tag or run.ref, hints.tag(wanted, run))


def _ref(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    """A policy without branch and tag covers all of these, and a pull request only where it is named as an event."""
    if conditions.names_ref or run.ref.startswith(("refs/heads/", "refs/tags/")):
        return None
    if run.ref.startswith("refs/pull/") and "pull_request" in (conditions.events or ()):
        return None
    return FailedCondition("ref", "a branch or a tag", run.ref, hints.ref(run))


def _environment(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    wanted = conditions.environment
    # Absent is not empty: a job without an environment never went through its protection rules (A11).
    if wanted is None or (
        run.environment is not None and ascii_lower(run.environment) == ascii_lower(wanted)
    ):
        return None
    return FailedCondition("environment", wanted, run.environment, hints.environment(wanted, run))


def _workflow(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    wanted = conditions.workflow
    if wanted is None or run.workflow_file == wanted:
        return None
    return FailedCondition(
        "workflow", wanted, run.workflow_file or run.workflow_ref, hints.workflow(wanted, run)
    )


def _called_workflow(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    wanted = conditions.called_workflow
    if wanted is None or run.job_workflow_ref == wanted:
        return None
    return FailedCondition("calledWorkflow", wanted, run.job_workflow_ref, hints.called_workflow(wanted, run))


def _actor(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    wanted = conditions.actor_ids
    if wanted is None or run.actor_id in wanted:
        return None
    return FailedCondition("actorIds", wanted, run.actor_id, hints.ACTOR)


def _runner(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    wanted = conditions.runner_environment
    if wanted is None or run.runner_environment == wanted:
        return None
    return FailedCondition("runnerEnvironment", wanted, run.runner_environment, hints.runner(wanted))


def _visibility(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    wanted = conditions.visibility
    if wanted is None or run.repository_visibility == wanted:
        return None
    return FailedCondition("visibility", wanted, run.repository_visibility, hints.visibility(wanted))


def _event(conditions: Conditions, run: WorkflowIdentity) -> FailedCondition | None:
    wanted = conditions.events
    if wanted is not None:
        listed = run.event_name in wanted
        return None if listed else FailedCondition("events", wanted, run.event_name, hints.event(run))
    if run.event_name not in DEFAULT_DENIED_EVENTS:
        return None
    expected = f"any event but {', '.join(DEFAULT_DENIED_EVENTS)}"
    return FailedCondition("events", expected, run.event_name, hints.default_denied_event(run))


_CHECKS: tuple[Callable[[Conditions, WorkflowIdentity], FailedCondition | None], ...] = (
    _branch,
    _tag,
    _ref,
    _environment,
    _workflow,
    _called_workflow,
    _actor,
    _runner,
    _visibility,
    _event,
)
