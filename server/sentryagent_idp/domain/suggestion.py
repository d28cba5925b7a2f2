"""The policy suggested to an admin for a refused run: it allows this run and removes no condition.

People who read a refusal under pressure paste what it suggests. So the suggestion has every condition of the nearest
policy: one that the run fails gets the run's own value. If the run has none, the remedy is the condition's hint alone.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

from sentryagent_idp.domain import conditions, patterns, policy_syntax
from sentryagent_idp.domain.conditions import DECLARED, DEFAULT_DENIED_EVENTS, Conditions
from sentryagent_idp.domain.identity import WorkflowIdentity
from sentryagent_idp.domain.records import service_grant, timestamp
from sentryagent_idp.domain.trust_policy import NOT_GRANTED, Denied, Evaluation, TrustPolicy

_REF = frozenset({"branch", "tag"})
_OFF = frozenset({"enabled", "expiresAt"})
_MERGE_QUEUE = re.compile(r"(gh-readonly-queue/.+)/pr-[0-9]+-[0-9a-f]+")


def nearest_first(evaluations: Iterable[Evaluation], agent_id: UUID | None) -> list[Evaluation]:
    """Sort policies by how close they are to allowing the run: those for the requested agent and service come first."""

    def distance(evaluation: Evaluation) -> tuple[Any, ...]:
        policy, is_off = evaluation.policy, bool(evaluation.failed_names & _OFF)
        is_for_others = policy.agent_id != agent_id, NOT_GRANTED in evaluation.failed_names
        return *is_for_others, len(evaluation.failed), is_off, policy.created_at, policy.id

    return sorted(evaluations, key=distance)


def suggested_policy(
    denied: Denied, identity: WorkflowIdentity, agent_id: UUID | None
) -> dict[str, Any] | None:
    """The body to POST, or `None` if a new policy is not the remedy."""
    if identity.event_name in DEFAULT_DENIED_EVENTS or not denied.agent_is_active:
        return None
    nearest = next(iter(nearest_first(denied.evaluations, agent_id)), None)
    failed: set[str] = nearest.failed_names if nearest else set()
    wanted = _conditions(nearest.policy.conditions if nearest else Conditions(), failed, identity)
    # Pasting must not bring back a disabled policy, a copy of an expired policy would be expired too, and a POST cannot
    # create a policy that exists already.
    if wanted is None or failed & _OFF or _is_taken(wanted, denied, agent_id):
        return None
    return {
        "provider": identity.provider,
        "repository": identity.repository,
        **({} if denied.is_of_default_issuer else {"issuer": identity.issuer}),
        **({"agentId": str(agent_id)} if agent_id else {}),
        **conditions.by_json_name(wanted),
        "repositoryId": identity.repository_id,
        "repositoryOwnerId": identity.repository_owner_id,
        **(_terms(nearest.policy, agent_id) if nearest else {}),
    }


def _conditions(template: Conditions, failed: Collection[str], run: WorkflowIdentity) -> Conditions | None:
    """The template with the run's values in the failed conditions, or `None` if a policy cannot have such values."""
    # `events` always becomes the run's own event: strangers may be able to trigger the others (A6).
    values = {
        name: DECLARED[name].suggested(value, run)
        for name, value in conditions.wanted_by(template).items()
        if name not in _REF and (DECLARED[name].json_name in failed or name == "events")
    }
    if None in values.values() or not _can_be_named(run):
        return None
    if template.environment is None:
        values["environment"] = DECLARED["environment"].suggested(None, run)
    if not template.names_ref or _REF & set(failed):
        values |= {"branch": run.branch and _lasting(run.branch), "tag": run.tag}
    suggested = replace(template, **values)
    is_reachable = policy_syntax.unreachable(suggested.events, names_ref=suggested.names_ref) is None
    return suggested if is_reachable else None


def _lasting(branch: str) -> str:
    """The branch, or a pattern for a merge queue, which creates a new branch for each entry."""
    queue = _MERGE_QUEUE.fullmatch(branch)
    return f"{queue.group(1)}/**" if queue else branch


def _can_be_named(run: WorkflowIdentity) -> bool:
    """Whether a policy can name the run's repository and ref."""
    # A `*` in a name would be read as a wildcard, and allow more than this run.
    name = run.branch or run.tag or ""
    problems = (
        policy_syntax.branch(name) if run.tag is None else policy_syntax.tag(name),
        policy_syntax.repository(run.repository),
        policy_syntax.numeric_id(run.repository_id),
        policy_syntax.numeric_id(run.repository_owner_id),
    )
    return patterns.is_exact(name) and not any(problems)


def _is_taken(wanted: Conditions, denied: Denied, agent_id: UUID | None) -> bool:
    """Whether the agent already has a policy with these conditions, so that a PUT is the remedy."""
    policies = (evaluation.policy for evaluation in denied.evaluations)
    taken = (conditions.canonical(policy.conditions) for policy in policies if policy.agent_id == agent_id)
    return conditions.canonical(wanted) in taken


def _terms(nearest: TrustPolicy, agent_id: UUID | None) -> dict[str, Any]:
    """What the nearest policy gives, and for how long; without scopes and grants if it is for another agent."""
    is_for_agent = nearest.agent_id in {None, agent_id}
    terms = {
        "scopes": nearest.scopes if is_for_agent else None,
        "grants": list(map(service_grant, nearest.grants)) or None if is_for_agent else None,
        "maxTtl": nearest.max_ttl,
        "expiresAt": nearest.expires_at and timestamp(nearest.expires_at),
        "trustRegistered": nearest.trust_registered if agent_id is None else None,
    }
    return {name: value for name, value in terms.items() if value is not None}
