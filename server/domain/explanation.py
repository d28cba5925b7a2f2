"""What a refused run is told: which claims mattered, how close each policy was, and the policy that would do.

All of it concerns the caller's own repository, which it has proven to be (federation-security B20, R-EXP-1).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from server.domain import conditions, patterns, policy_syntax
from server.domain.conditions import DEFAULT_DENIED_EVENTS, Conditions, FailedCondition
from server.domain.identity import WorkflowIdentity
from server.domain.records import timestamp
from server.domain.trust_policy import DenialReason, Denied, Evaluation

MAX_NEAREST = 3

_ALWAYS_SHOWN = ("repository", "repository_id", "repository_owner_id", "ref", "ref_type", "event_name")
_CLAIM_OF = {
    "environment": "environment",
    "workflow": "workflow_ref",
    "calledWorkflow": "job_workflow_ref",
    "actorIds": "actor_id",
    "runnerEnvironment": "runner_environment",
    "visibility": "repository_visibility",
}
_REF_CONDITIONS = frozenset({"branch", "tag", "ref"})


def message(denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None) -> str:
    """The refusal in a sentence with cause and remedy."""
    repository = identity.repository
    match denied.reason:
        case DenialReason.IDENTITY_CHANGED:
            return (
                f"The repository {repository} is not the one that its trust policies were written for: name equal, ids "
                "different; where that is meant, an admin must correct or remove their repositoryId and repositoryOwnerId."
            )
        case DenialReason.REF_TYPE_MISSING:
            return (
                "The token has no claim ref_type, without which no branch or tag of a trust policy matches; "
                "send the ID token that GitHub issued to the job, which has it."
            )
        case DenialReason.BRANCH_NOT_PERMITTED:
            return (
                f"Branch not permitted: no trust policy of {repository} covers {identity.ref or 'a run without a ref'}; "
                f"run from {_covered_refs(denied.evaluations)}, or have an admin add a policy."
            )
    return f"Trust policy violation: {_violation(denied, identity, agent_id)}"


def _covered_refs(evaluations: Iterable[Evaluation]) -> str:
    alone = (it.failed[0] for it in evaluations if len(it.failed) == 1)
    names = {
        f"{failed.condition} {failed.expected}": None
        for failed in alone
        if failed.condition in {"branch", "tag"}
    }
    return " or ".join(list(names)[:MAX_NEAREST])


def _violation(denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None) -> str:
    if not denied.agent_is_active:
        return f"the agent {agent_id} is unknown or not active; check the agentId, or have an admin reactivate it."
    if not denied.evaluations:
        advice = ", such as details.suggestedPolicy" if _suggested_policy(denied, identity, agent_id) else ""
        return (
            f"{identity.repository} has no trust policy; have an admin add one for this run{advice}, "
            "or correct `repository` in the old ones where the repository was renamed."
        )
    nearest = _nearest(denied.evaluations)[0]
    failed = ", ".join(failure.condition for failure in nearest.failed)
    return (
        f"no trust policy of {identity.repository} lets this run in; the nearest fails on {failed}, "
        "and its hints tell what to change."
    )


def explain(denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None) -> dict[str, Any]:
    """The `details` of a refusal that a caller may see in full: not of `IDENTITY_CHANGED`, which has none."""
    nearest = _nearest(denied.evaluations)
    return {
        "claims": _claims(nearest, identity),
        "nearestPolicies": [_with_notes(policy, identity) for policy in nearest],
        "suggestedPolicy": _suggested_policy(denied, identity, agent_id),
    }


def trace(evaluations: Iterable[Evaluation]) -> list[dict[str, Any]]:
    """Every policy that was looked at, for simulations."""
    return [_entry("policyId", evaluation, evaluation.failed) for evaluation in evaluations]


def nearest_trace(denied: Denied) -> list[dict[str, Any]]:
    """The policies that came nearest, for the audit."""
    return trace(_nearest(denied.evaluations))


def cause(denied: Denied) -> str:
    """Why a run is refused, without a word of the client's: refusals with the same cause are counted together.

    Where policies were looked at, these are the conditions that fail in the nearest one.
    """
    if denied.reason in {DenialReason.IDENTITY_CHANGED, DenialReason.REF_TYPE_MISSING}:
        return denied.reason.value
    if not denied.agent_is_active:
        return "agent_not_active"
    if not denied.evaluations:
        return "no_policy"
    return " ".join(failure.condition for failure in _nearest(denied.evaluations)[0].failed)


def _nearest(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    by_distance = sorted(evaluations, key=lambda it: (len(it.failed), it.policy.created_at, it.policy.id))
    return by_distance[:MAX_NEAREST]


def _claims(evaluations: Iterable[Evaluation], identity: WorkflowIdentity) -> dict[str, str | None]:
    failed = {failure.condition for it in evaluations for failure in it.failed}
    names = (*_ALWAYS_SHOWN, *(claim for name, claim in _CLAIM_OF.items() if name in failed))
    return {name: getattr(identity, name) for name in names}


def _with_notes(evaluation: Evaluation, identity: WorkflowIdentity) -> dict[str, Any]:
    # People who trusted other clouds by `sub` look for the cause there; since 2026 it even has ids in it (A9).
    if "@" not in identity.sub.removeprefix("repo:").partition(":")[0]:
        return _entry("id", evaluation, evaluation.failed)
    note = " (GitHub's new form of `sub`, with ids, is not the cause: policies compare claims, never `sub`.)"
    failed = [
        replace(failure, hint=failure.hint + note) if failure.condition in _REF_CONDITIONS else failure
        for failure in evaluation.failed
    ]
    return _entry("id", evaluation, failed)


def _entry(id_name: str, evaluation: Evaluation, failed: Sequence[FailedCondition]) -> dict[str, Any]:
    return {
        id_name: str(evaluation.policy.id),
        "matched": list(evaluation.matched),
        "failed": [
            {
                "condition": it.condition,
                "expected": _json(it.expected),
                "actual": _json(it.actual),
                "hint": it.hint,
            }
            for it in failed
        ],
    }


def _json(value: str | bool | datetime | tuple[str, ...] | None) -> str | bool | list[str] | None:
    if isinstance(value, datetime):
        return timestamp(value)
    return list(value) if isinstance(value, tuple) else value


def _suggested_policy(
    denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None
) -> dict[str, Any] | None:
    """The body to POST so that this very run is let in, and as little else as can be told from it."""
    if identity.event_name in DEFAULT_DENIED_EVENTS or not denied.agent_is_active:
        return None
    candidates = [it for it in denied.evaluations if it.policy.agent_id == agent_id]
    # The same conditions can be there already, switched off or expired: a second policy with them would be a 409.
    taken = [conditions.canonical(it.policy.conditions) for it in candidates]
    kept = _kept_conditions(_nearest(candidates), identity)
    fresh = (it for it in _suggested_conditions(identity, kept) if conditions.canonical(it) not in taken)
    wanted = next(fresh, None)
    if wanted is None:
        return None
    return {
        "provider": identity.provider,
        "repository": identity.repository,
        **({"agentId": str(agent_id)} if agent_id else {}),
        **conditions.members(wanted),
        "repositoryId": identity.repository_id,
        "repositoryOwnerId": identity.repository_owner_id,
    }


def _kept_conditions(nearest: Sequence[Evaluation], identity: WorkflowIdentity) -> Conditions:
    """What the nearest policy asks for and the run has: who copies the suggestion must not lose it without noticing."""
    if not nearest:
        return Conditions()
    lost = [name for name, json_name in conditions.JSON_NAMES.items() if json_name not in nearest[0].matched]
    kept = replace(nearest[0].policy.conditions, **dict.fromkeys(lost))
    # Of several events only the run's own: among the others may be such that strangers can cause (A6).
    return kept if kept.events is None else replace(kept, events=(identity.event_name,))


def _suggested_conditions(identity: WorkflowIdentity, kept: Conditions) -> Iterator[Conditions]:
    """The run's ref and environment, then narrower and narrower; nothing where no policy can name the ref."""
    if not _can_be_named(identity):
        return
    environment = identity.environment
    if environment is not None and policy_syntax.environment(environment) is not None:
        environment = None
    wanted = replace(kept, branch=identity.branch, tag=identity.tag, environment=environment)
    yield wanted
    if identity.workflow_file is not None and policy_syntax.workflow(identity.workflow_file) is None:
        wanted = replace(wanted, workflow=identity.workflow_file)
        yield wanted
    if (
        identity.job_workflow_ref is not None
        and policy_syntax.called_workflow(identity.job_workflow_ref) is None
    ):
        yield replace(wanted, called_workflow=identity.job_workflow_ref)


def _can_be_named(identity: WorkflowIdentity) -> bool:
    # A name with a `*` in it would be read as a wildcard, and let in more than this run.
    if identity.branch is not None:
        fault = policy_syntax.branch(identity.branch)
    else:
        fault = "no branch, no tag" if identity.tag is None else policy_syntax.tag(identity.tag)
    name = identity.branch or identity.tag or ""
    return fault is None and patterns.is_exact(name) and policy_syntax.repository(identity.repository) is None
