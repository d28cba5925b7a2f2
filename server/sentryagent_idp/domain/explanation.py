"""The explanation of a refusal: which claims mattered, how close each policy was, and the policy that would do.

All of it concerns the caller's own repository, whose token is verified (federation-security B20, R-EXP-1).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

from sentryagent_idp.domain import records
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.suggestion import nearest_first, suggested_policy
from sentryagent_idp.domain.trust_policy import DenialReason, Denied, Evaluation

MAX_NEAREST = 3

_ALWAYS_SHOWN = ("repository", "repository_id", "repository_owner_id", "ref", "ref_type", "event_name")
_REF_CONDITIONS = frozenset({"branch", "tag", "ref"})
_CAUSES = frozenset(
    {DenialReason.IDENTITY_CHANGED, DenialReason.REF_TYPE_MISSING, DenialReason.SERVICE_NOT_PERMITTED}
)
"""Reasons that say all; of the others the failed conditions are the cause."""


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
        case DenialReason.SERVICE_NOT_PERMITTED:
            return (
                f"No trust policy of {repository} grants the agent {agent_id} this service; ask for one of "
                "details.permitted, or have an admin add the service to the `grants` of a policy."
            )
    return f"Trust policy violation: {_violation(denied, identity, agent_id)}"


def _covered_refs(evaluations: Iterable[Evaluation]) -> str:
    alone = (evaluation.failed[0] for evaluation in evaluations if len(evaluation.failed) == 1)
    refs = (
        f"{failed.condition} {failed.expected}" for failed in alone if failed.condition in {"branch", "tag"}
    )
    return " or ".join(list(dict.fromkeys(refs))[:MAX_NEAREST])


def _violation(denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None) -> str:
    if not denied.agent_is_active:
        return f"the agent {agent_id} is unknown or not active; check the agentId, or have an admin reactivate it."
    if not denied.evaluations:
        advice = ", such as details.suggestedPolicy" if suggested_policy(denied, identity, agent_id) else ""
        return (
            f"{identity.repository} has no trust policy; have an admin add one for this run{advice}, "
            "or correct `repository` in the old ones where the repository was renamed."
        )
    nearest = nearest_first(denied.evaluations, agent_id)[0]
    failed = ", ".join(failure.condition for failure in nearest.failed)
    return (
        f"no trust policy of {identity.repository} lets this run in; the nearest fails on {failed}, "
        "and its hints tell what to change."
    )


def explain(denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None) -> dict[str, Any]:
    """The `details` of a refusal that a caller may see in full: not of `IDENTITY_CHANGED`, which has none."""
    nearest = nearest_first(denied.evaluations, agent_id)[:MAX_NEAREST]
    return {
        "claims": _claims(nearest, identity),
        "nearestPolicies": [_with_hints(evaluation, identity) for evaluation in nearest],
        "suggestedPolicy": suggested_policy(denied, identity, agent_id),
    }


def trace(evaluations: Iterable[Evaluation]) -> list[records.TracedPolicy]:
    """Every policy that was looked at, for simulations."""
    return [
        {
            "policyId": str(evaluation.policy.id),
            "matched": list(evaluation.matched),
            "failed": list(map(records.failed_condition, evaluation.failed)),
        }
        for evaluation in evaluations
    ]


def nearest_trace(denied: Denied, agent_id: UUID | None) -> list[records.TracedPolicy]:
    """The policies that came nearest, for the audit."""
    return trace(nearest_first(denied.evaluations, agent_id)[:MAX_NEAREST])


def cause(denied: Denied, agent_id: UUID | None) -> str:
    """Why a run is refused, without a word of the client's: refusals with the same cause are counted together.

    Where policies were looked at, these are the conditions that fail in the nearest one.
    """
    if denied.reason in _CAUSES:
        return denied.reason.value
    if not denied.agent_is_active:
        return "agent_not_active"
    if not denied.evaluations:
        return "no_policy"
    return " ".join(failure.condition for failure in nearest_first(denied.evaluations, agent_id)[0].failed)


def _claims(evaluations: Iterable[Evaluation], identity: WorkflowIdentity) -> dict[str, str | None]:
    failed = (failure for evaluation in evaluations for failure in evaluation.failed)
    compared = (claim for failure in failed for claim in failure.claims)
    claims = identity.claims()
    return {name: claims.get(name) for name in (*_ALWAYS_SHOWN, *compared)}


def _with_hints(evaluation: Evaluation, identity: WorkflowIdentity) -> dict[str, Any]:
    failed = evaluation.failed
    # People who trusted other clouds by `sub` look for the cause there; since 2026 it even has ids in it (A9).
    if "@" in identity.sub.removeprefix("repo:").partition(":")[0]:
        remark = (
            " (GitHub's new form of `sub`, with ids, is not the cause: policies compare claims, never `sub`.)"
        )
        failed = tuple(
            replace(failure, hint=failure.hint + remark) if failure.condition in _REF_CONDITIONS else failure
            for failure in failed
        )
    return {
        "id": str(evaluation.policy.id),
        "matched": list(evaluation.matched),
        "failed": list(map(records.failed_condition, failed)),
    }
