"""The explanation of a refusal: the claims that mattered, how close each policy was, and a policy to add.

All of it concerns the caller's own repository, whose token was verified (B20).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sentryagent_idp.domain import records
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.suggestion import nearest_first, suggested_policy
from sentryagent_idp.domain.trust_policy import DenialReason, Denied, Evaluation, TrustPolicy

MAX_NEAREST = 3

# The issuer is not named: at another issuer, the repository's name may belong to a stranger.
_STRANDED = (
    "policies of that name belong to an issuer that this provider is not configured for; have an admin add it to "
    "SENTRYAGENT_GITHUB_ISSUER, or move them with `sentryagent-idp policies move-issuer`."
)
_ALWAYS_SHOWN = ("repository", "repository_id", "repository_owner_id", "ref", "ref_type", "event_name")
_REF_CONDITIONS = frozenset({"branch", "tag", "ref"})
_CAUSES = frozenset({DenialReason.IDENTITY_CHANGED, DenialReason.SERVICE_NOT_PERMITTED})
"""Reasons that are the whole cause; for the others, it is the failed conditions."""


def message(denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None) -> str:
    """The refusal as a sentence, with cause and remedy."""
    repository = identity.repository
    match denied.reason:
        case DenialReason.IDENTITY_CHANGED:
            return (
                f"The repository {repository} is not the one that its trust policies were written for: same name, "
                "different ids; if this is intended, an admin must correct or remove their repositoryId and repositoryOwnerId."
            )
        case DenialReason.REF_TYPE_MISSING:
            return (
                "The token has no claim ref_type, so no branch or tag of a trust policy can match; "
                "send the ID token that GitHub issued to the job."
            )
        case DenialReason.BRANCH_NOT_PERMITTED:
            remedy = f"run from {_covered_refs(denied.evaluations)}, or have an admin add a policy."
            return (
                f"Branch not permitted: no trust policy of {repository} covers {identity.ref or 'a run without a ref'}"
                f"{_remedied(denied, remedy)}"
            )
        case DenialReason.SERVICE_NOT_PERMITTED:
            live = _live(denied.evaluations)
            if live:
                cause = f"No trust policy of {repository} grants the agent {agent_id} this service"
            else:
                cause = f"{repository} has no trust policy for the agent {agent_id} that is enabled and has not expired"
            return f"{cause}{_remedied(denied, _service_remedy(live))}"
    return f"Trust policy violation: {_violation(denied, identity, agent_id)}"


def _remedied(denied: Denied, remedy: str) -> str:
    elsewhere = _elsewhere(denied)
    return f", but {elsewhere}" if elsewhere else f"; {remedy}"


def _elsewhere(denied: Denied) -> str:
    """Under which other name or issuer the repository's policies are, and the remedy; empty if there are none."""
    if denied.other_names:
        names = " and ".join(denied.other_names)
        return (
            f"policies of {names} have its repositoryId: the repository was renamed or transferred; have an admin set "
            "`repository` in them to its new name."
        )
    return _STRANDED if denied.is_stranded else ""


def _covered_refs(evaluations: Iterable[Evaluation]) -> str:
    alone = (evaluation.failed[0] for evaluation in evaluations if len(evaluation.failed) == 1)
    refs = (
        f"{failed.condition} {failed.expected}" for failed in alone if failed.condition in {"branch", "tag"}
    )
    return " or ".join(list(dict.fromkeys(refs))[:MAX_NEAREST])


def _live(evaluations: Iterable[Evaluation]) -> list[TrustPolicy]:
    """The live policies for the agent, whatever their conditions."""
    return [it.policy for it in evaluations if not it.failed_names & {"agentId", "enabled", "expiresAt"}]


def _service_remedy(live: Sequence[TrustPolicy]) -> str:
    """What to request instead, as text, because an error response of RFC 8693 has no field for details."""
    if not live:
        return "have an admin add one that grants the service, or enable or extend one."
    services = sorted({grant.service for policy in live for grant in policy.grants})[:MAX_NEAREST]
    instead = f"request {' or '.join(services)}, or " if services else ""
    return f"{instead}have an admin add the service to the `grants` of a policy."


def _violation(denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None) -> str:
    if not denied.agent_is_active:
        return f"the agent {agent_id} is unknown or not active; check the agentId, or have an admin reactivate it."
    elsewhere = _elsewhere(denied)
    if elsewhere:
        return f"no trust policy of {identity.repository} allows this run, but {elsewhere}"
    if not denied.evaluations:
        return (
            f"{identity.repository} has no trust policy; have an admin add one for this run, or correct `repository` in "
            "the old ones if the repository was renamed."
        )
    nearest = nearest_first(denied.evaluations, agent_id)[0]
    failed = ", ".join(failure.condition for failure in nearest.failed)
    return (
        f"no trust policy of {identity.repository} allows this run; the nearest fails on {failed}: change the run, or "
        "have an admin change the policy."
    )


def explain(denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None) -> dict[str, Any]:
    """The `details` of a refusal that the caller may see in full; `IDENTITY_CHANGED` has none."""
    nearest = nearest_first(denied.evaluations, agent_id)[:MAX_NEAREST]
    return {
        "claims": _claims(nearest, identity),
        "nearestPolicies": [_with_hints(evaluation, identity) for evaluation in nearest],
        "suggestedPolicy": suggested_policy(denied, identity, agent_id),
    }


def trace(evaluations: Iterable[Evaluation]) -> list[records.TracedPolicy]:
    """The result of each evaluated policy, for simulations and the audit."""
    return [
        {
            "policyId": str(evaluation.policy.id),
            "matched": list(evaluation.matched),
            "failed": list(map(records.failed_condition, evaluation.failed)),
        }
        for evaluation in evaluations
    ]


def nearest_trace(denied: Denied, agent_id: UUID | None) -> list[records.TracedPolicy]:
    """The results of the nearest policies, for the audit."""
    return trace(nearest_first(denied.evaluations, agent_id)[:MAX_NEAREST])


def cause(denied: Denied, agent_id: UUID | None) -> str:
    """Why a run is refused, without text from the client: refusals with the same cause are counted together.

    If policies were evaluated, the cause is the conditions that fail in the nearest one.
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
    # People who know trust by `sub` from other clouds look for the cause there; since 2026 `sub` even contains ids (A9).
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
