"""Trust policies: which run of which repository may act as which agent."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from sentryagent_idp.domain import conditions, patterns, scopes
from sentryagent_idp.domain.condition_kinds import FailedCondition
from sentryagent_idp.domain.conditions import Conditions
from sentryagent_idp.domain.identity import GITHUB, WorkflowIdentity, repository_key
from sentryagent_idp.domain.scopes import BOOTSTRAP_SCOPES, DEFAULT_POLICY_SCOPES
from sentryagent_idp.domain.service import ServiceGrant

USE_IS_RECORDED_EVERY = timedelta(minutes=1)
"""The precision of `last_used_at`: exchanges under one policy must not queue for its row."""

_DISABLED = "The policy is disabled; set `enabled` to true."
_NO_GRANT = "The policy does not grant this service; request one that it grants, or add this one to `grants`."
_EXPIRED = "The policy has expired; set a later `expiresAt`, or remove it."
NOT_GRANTED = "grants"
"""The failure of a policy that does not grant the requested service. Not a condition: `conditions_key` ignores it."""

_NOT_A_CANDIDATE = frozenset({"agentId", "enabled", "expiresAt", NOT_GRANTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """A trust policy. Without `agent_id` it is a bootstrap policy; the ids pin the repository's identity.

    A response of the API has these fields in this order, in camelCase, with each condition as a field of its own.
    """

    id: UUID
    provider: str = GITHUB
    issuer: str
    repository: str
    repository_id: str | None = None
    repository_owner_id: str | None = None
    agent_id: UUID | None = None
    conditions: Conditions = field(default_factory=Conditions)
    scopes: tuple[str, ...] = DEFAULT_POLICY_SCOPES
    max_ttl: int | None = None
    grants: tuple[ServiceGrant, ...] = ()
    trust_registered: bool = False
    derived_from: UUID | None = None
    enabled: bool = True
    expires_at: datetime | None = None
    description: str | None = None
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None = None
    version: int = 1

    @property
    def repository_key(self) -> str:
        """The repository's name in the form in which names are compared."""
        return repository_key(self.repository)

    @property
    def in_audit(self) -> Mapping[str, Any]:
        """The fields of an audit record that identify the policy."""
        return {
            "agent_id": self.agent_id,
            "policy_id": self.id,
            "policy_version": self.version,
            "repository": self.repository,
        }

    def is_live(self, now: datetime) -> bool:
        """Whether the policy is in force at `now`: enabled and not expired."""
        return self.enabled and (self.expires_at is None or now < self.expires_at)

    def granted_at(self, service: str) -> tuple[str, ...] | None:
        """The scopes granted at the service with exactly this identifier; `None` without a grant."""
        return next((grant.scopes for grant in self.grants if grant.service == service), None)

    def derived(self, **fields: Any) -> "TrustPolicy":
        """The policy of an agent registered under this one: a copy, except for the given `fields`."""
        return replace(self, trust_registered=False, derived_from=self.id, **fields)


@dataclass(frozen=True, slots=True)
class PolicyFilter:
    """The filters of a list of policies; `repository`, `owner` and `search` are compared case-insensitively.

    `service` is a granted service, `search` a part of the repository's name or of the description; `expired` is as of
    `now`. A policy that was never used is unused since its creation.
    """

    provider: str | None = None
    issuer: str | None = None
    owner: str | None = None
    repository: str | None = None
    repository_id: str | None = None
    agent_id: UUID | None = None
    bootstrap: bool | None = None
    enabled: bool | None = None
    expired: bool | None = None
    derived_from: UUID | None = None
    service: str | None = None
    unused_since: datetime | None = None
    expires_before: datetime | None = None
    search: str | None = None
    now: datetime | None = None


def is_use_due(last_used_at: datetime | None, now: datetime) -> bool:
    """Whether a use at `now` must be recorded, given the last recorded one."""
    return last_used_at is None or now - last_used_at >= USE_IS_RECORDED_EVERY


class DenialReason(StrEnum):
    """Why no policy allows a run."""

    IDENTITY_CHANGED = "identity_changed"
    BRANCH_NOT_PERMITTED = "branch_not_permitted"
    TRUST_POLICY_VIOLATION = "trust_policy_violation"
    SERVICE_NOT_PERMITTED = "service_not_permitted"
    REF_TYPE_MISSING = "ref_type_missing"


class Evaluation(msgspec.Struct, frozen=True):
    """One policy of the run's repository, compared with the run; the policy allows the run if `failed` is empty.

    `failed` has the unmet conditions, explicit and implied (`ref`, `events`), and what keeps the policy from being a
    candidate (`agentId`, `enabled`, `expiresAt`, and `grants` if a service is requested).
    """

    policy: TrustPolicy
    failed: tuple[FailedCondition, ...]

    @property
    def failed_names(self) -> set[str]:
        """The names of the conditions in `failed`."""
        return {failure.condition for failure in self.failed}

    @property
    def matched(self) -> tuple[str, ...]:
        """The JSON names of the conditions that the policy sets and the run meets."""
        failed = self.failed_names
        return tuple(name for name in conditions.by_json_name(self.policy.conditions) if name not in failed)


class Allowed(msgspec.Struct, frozen=True):
    """A policy allows the run; `policy` is the one that applies, `evaluations` are those of all policies."""

    policy: TrustPolicy
    evaluations: tuple[Evaluation, ...]


class Denied(msgspec.Struct, frozen=True):
    """No policy allows the run; `agent_is_active` is false if that is why the run is denied.

    `is_stranded` means that the policies which could allow the run belong to an issuer that is not configured,
    `is_of_default_issuer` that a new policy gets the run's issuer even if it names none. `other_names` are the names
    under which the repository's id has policies, if there are none under its current name.
    """

    reason: DenialReason
    evaluations: tuple[Evaluation, ...]
    agent_is_active: bool = True
    is_stranded: bool = False
    is_of_default_issuer: bool = True
    other_names: tuple[str, ...] = ()


Decision = Allowed | Denied


def decide(
    policies: Iterable[TrustPolicy],
    identity: WorkflowIdentity,
    agent_id: UUID | None,
    now: datetime,
    *,
    agent_is_active: bool = True,
    service: str | None = None,
) -> Decision:
    """Decide whether a run may act as an agent or, if `agent_id` is `None`, register agents.

    `policies` are all policies of the run's repository, for any agent and in any order; without any, the run is
    denied. `agent_is_active` is false if the agent is unknown or not active, and is ignored without an agent.
    `service` is the identifier of the service that the token is for; without one it is for the provider's own API.
    """
    evaluations = tuple(
        _evaluate(policy, identity, agent_id, now, service)
        for policy in policies
        if _is_of_repository(policy, identity)
    )
    live = (evaluation.policy for evaluation in evaluations if evaluation.policy.is_live(now))
    if any(_has_other_ids(policy, identity) for policy in live):
        return Denied(DenialReason.IDENTITY_CHANGED, evaluations)
    if agent_id is not None and not agent_is_active:
        return Denied(DenialReason.TRUST_POLICY_VIOLATION, evaluations, agent_is_active=False)
    matching = [evaluation.policy for evaluation in evaluations if not evaluation.failed]
    if matching:
        return Allowed(min(matching, key=_precedence), evaluations)
    if service is not None and not any(map(_is_candidate, evaluations)):
        return Denied(DenialReason.SERVICE_NOT_PERMITTED, evaluations)
    return Denied(_reason(evaluations, identity), evaluations)


def permitted_services(
    evaluations: Iterable[Evaluation], agent_id: UUID | None, now: datetime
) -> tuple[str, ...]:
    """The services at which the agent's live policies grant scopes."""
    policies = (evaluation.policy for evaluation in evaluations)
    live = (policy for policy in policies if policy.agent_id == agent_id and policy.is_live(now))
    return tuple(sorted({grant.service for policy in live for grant in policy.grants}))


def _is_of_repository(policy: TrustPolicy, identity: WorkflowIdentity) -> bool:
    # The store returns only these. If that ever breaks, one issuer must still not speak for another (B16).
    repository = (identity.issuer, identity.provider, identity.repository_key)
    return (policy.issuer, policy.provider, policy.repository_key) == repository


def _has_other_ids(policy: TrustPolicy, identity: WorkflowIdentity) -> bool:
    # A name can be given up and taken by another owner; its ids cannot (A8).
    return policy.repository_id not in {None, identity.repository_id} or policy.repository_owner_id not in {
        None,
        identity.repository_owner_id,
    }


def _evaluate(
    policy: TrustPolicy,
    identity: WorkflowIdentity,
    agent_id: UUID | None,
    now: datetime,
    service: str | None,
) -> Evaluation:
    failed = conditions.failures(policy.conditions, identity)
    return Evaluation(policy, (*_administrative_failures(policy, agent_id, now, service), *failed))


def _administrative_failures(
    policy: TrustPolicy, agent_id: UUID | None, now: datetime, service: str | None
) -> Iterable[FailedCondition]:
    if policy.agent_id != agent_id:
        hint = _agent_hint(policy.agent_id, agent_id)
        yield FailedCondition("agentId", policy.agent_id, agent_id, hint)
    if not policy.enabled:
        yield FailedCondition("enabled", True, False, _DISABLED)
    if policy.expires_at is not None and now >= policy.expires_at:
        yield FailedCondition("expiresAt", policy.expires_at, now, _EXPIRED)
    if service is not None and policy.granted_at(service) is None:
        granted = tuple(grant.service for grant in policy.grants)
        yield FailedCondition(NOT_GRANTED, granted, service, _NO_GRANT)


def _agent_hint(policy_agent: UUID | None, requested: UUID | None) -> str:
    if policy_agent is None:
        return "This is a bootstrap policy, for registering agents; add a policy with this `agentId`."
    if requested is None:
        return "This policy is for an agent; send its `agentId`, or add a bootstrap policy."
    return "This policy is for another agent; correct the requested `agentId`, or add a policy for it."


def _precedence(policy: TrustPolicy) -> tuple[int, bool, datetime, UUID]:
    """A sort key, smallest first: most conditions, then an exact branch or tag, then the oldest; the id breaks ties."""
    wanted = conditions.wanted_by(policy.conditions)
    ref = wanted.get("branch", wanted.get("tag", "*"))
    return (-len(wanted), not patterns.is_exact(ref), policy.created_at, policy.id)


def _is_candidate(evaluation: Evaluation) -> bool:
    return not evaluation.failed_names & _NOT_A_CANDIDATE


def _reason(evaluations: Iterable[Evaluation], identity: WorkflowIdentity) -> DenialReason:
    candidates = list(filter(_is_candidate, evaluations))
    names_ref = any(candidate.policy.conditions.names_ref for candidate in candidates)
    if identity.ref_type is None and names_ref:
        return DenialReason.REF_TYPE_MISSING
    failed = [candidate.failed_names for candidate in candidates]
    if {"branch"} in failed or {"tag"} in failed:
        return DenialReason.BRANCH_NOT_PERMITTED
    return DenialReason.TRUST_POLICY_VIOLATION


def conditions_key(policy: TrustPolicy) -> str:
    """What makes two policies equal: issuer, provider, agent, repository and conditions, as canonical JSON."""
    content = {
        "issuer": policy.issuer,
        "provider": policy.provider,
        "agentId": str(policy.agent_id) if policy.agent_id else None,
        "repository": policy.repository_key,
        **conditions.canonical(policy.conditions),
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def effective_ttl(policy: TrustPolicy, requested: int | None, ceiling: int) -> int:
    """The lifetime of the token in seconds, which policy and request can only shorten."""
    return min(limit for limit in (ceiling, policy.max_ttl, requested) if limit is not None)


@dataclass(frozen=True, slots=True)
class ScopeRefused:
    """The first requested scope that is not permitted, `None` if none was requested, and the permitted ones."""

    requested: str | None
    permitted: tuple[str, ...]


def permitted_scopes(policy: TrustPolicy, service: str | None = None) -> tuple[str, ...]:
    """All scopes that the policy gives at a service, or at the provider's own API.

    A bootstrap policy gives `agents:write`, whatever its `scopes`, which are for the policies derived from it.
    """
    if service is not None:
        return policy.granted_at(service) or ()
    return policy.scopes if policy.agent_id is not None else BOOTSTRAP_SCOPES


def granted_scopes(
    policy: TrustPolicy, requested: Sequence[str] | None, service: str | None = None
) -> tuple[str, ...] | ScopeRefused:
    """The token's scopes: all that the policy gives at the service or API, or the requested ones (RFC 6749, 3.3).

    A policy that only grants services gives no token for the provider's own API: it would only identify its bearer.
    """
    permitted = permitted_scopes(policy, service)
    if requested is None:
        return permitted or ScopeRefused(None, permitted)
    for scope in requested:
        if not scopes.satisfies(permitted, scope):
            return ScopeRefused(scope, permitted)
    return tuple(dict.fromkeys(requested))
