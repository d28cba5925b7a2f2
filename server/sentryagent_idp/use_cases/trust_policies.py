"""The administration of trust policies: create, read, replace and delete them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sentryagent_idp import errors
from sentryagent_idp.domain.agent import AgentStatus
from sentryagent_idp.domain.audit import Action, RequestContext
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.domain.conditions import Conditions, json_name
from sentryagent_idp.domain.identity import repository_key
from sentryagent_idp.domain.records import Page, changes, policy_record
from sentryagent_idp.domain.scopes import (
    AGENTS_WRITE,
    FREELY_GRANTED,
    ONLY_ADMINS_GRANT,
    POLICIES_WRITE,
    SERVICES_WRITE,
)
from sentryagent_idp.domain.service import Service, ServiceGrant, grant_problem
from sentryagent_idp.domain.trust_policy import PolicyFilter, TrustPolicy
from sentryagent_idp.ports import Clock, NewId, Store, Transaction
from sentryagent_idp.use_cases.audit import Auditor

_WHY_ADMINS = {
    POLICIES_WRITE: "its holder can become any agent",
    SERVICES_WRITE: "its holder defines the scopes of services",
}


@dataclass(frozen=True, slots=True)
class PolicyDraft:
    """A policy as its admin writes it.

    `nulls` names the fields sent as `null` for which that differs from leaving them out: the two ids (remove the pin)
    and `derivedFrom` (detach the policy from its origin).
    """

    provider: str
    repository: str
    conditions: Conditions
    agent_id: UUID | None
    repository_id: str | None
    repository_owner_id: str | None
    scopes: tuple[str, ...]
    max_ttl: int | None
    trust_registered: bool
    enabled: bool
    expires_at: datetime | None
    description: str | None
    grants: tuple[ServiceGrant, ...] = ()
    issuer: str | None = None
    nulls: frozenset[str] = frozenset()

    @property
    def content(self) -> dict[str, Any]:
        """The fields of the policy, without the issuer, which the draft may leave open."""
        fields = self.__dataclass_fields__.keys() - {"nulls", "issuer"}
        return {name: getattr(self, name) for name in fields}

    @property
    def services(self) -> list[str]:
        """The identifiers of the services that the policy grants."""
        return [grant.service for grant in self.grants]


@dataclass(frozen=True, slots=True)
class PolicyAdmin:
    """The use cases of trust policies; a new policy has the issuer that it names, or the first of `github_issuers`."""

    store: Store
    auditor: Auditor
    clock: Clock
    new_id: NewId
    github_issuers: tuple[str, ...]

    def create(self, caller: Caller, draft: PolicyDraft, context: RequestContext) -> TrustPolicy:
        """Store a new policy.

        Raises `Forbidden`, `AgentNotFound`, `AgentDecommissioned`, `ValidationFailed` for an issuer that is not configured
        and for a service or scope that does not exist, `TrustPolicyAlreadyExists`.
        """
        _check_rights(caller, draft)
        now = self.clock()
        issuer = self.github_issuers[0] if draft.issuer is None else self._issuer(draft.issuer)
        with self.store.write() as tx:
            services = tx.services.named(draft.services)
            _check_agent(tx, draft.agent_id)
            _check_grants(draft, services)
            policy = TrustPolicy(
                id=self.new_id(),
                issuer=issuer,
                created_at=now,
                updated_at=now,
                **{**draft.content, **self._ids(tx, draft, issuer, None)},
            )
            tx.policies.add(policy)
            self.auditor.change(
                tx, context, Action.POLICY_CREATED, caller, policy, after=policy_record(policy)
            )
        return policy

    def get(self, policy_id: UUID) -> TrustPolicy:
        """The policy; raises `TrustPolicyNotFound`."""
        with self.store.read() as tx:
            return _existing(tx, policy_id)

    def page(self, wanted: PolicyFilter, *, page: int, limit: int) -> Page[TrustPolicy]:
        """One page of the policies."""
        with self.store.read() as tx:
            return tx.policies.page(replace(wanted, now=self.clock()), page=page, limit=limit)

    def replace(
        self,
        caller: Caller,
        policy_id: UUID,
        draft: PolicyDraft,
        context: RequestContext,
        *,
        expected_versions: Sequence[int] | None,
    ) -> TrustPolicy:
        """Replace the whole policy, so that no old condition survives unnoticed (B25).

        Its derived policies change with it, or are deleted if `trustRegistered` is removed; a derived policy can only be
        replaced if the draft detaches it. `expected_versions` has the versions that `If-Match` allows; `None` allows any.
        Raises the same errors as `create`, and `TrustPolicyNotFound`, `PreconditionFailed`, `TrustPolicyDerived`.
        """
        _check_rights(caller, draft)
        with self.store.write() as tx:
            services = tx.services.named(draft.services)
            before = _existing(tx, policy_id, expected_versions)
            _check_origin(before, draft)
            _check_agent(tx, draft.agent_id)
            _check_grants(draft, services)
            issuer = self._kept_or_written(before, draft.issuer)
            after = replace(
                before,
                issuer=issuer,
                updated_at=self.clock(),
                version=before.version + 1,
                derived_from=None,
                **{**draft.content, **self._ids(tx, draft, issuer, before)},
            )
            if not after.trust_registered:
                # Before the policy changes, because it may become equal to one of them.
                self._remove_derived_from(tx, context, caller, after)
            tx.policies.replace(after)
            difference = changes(policy_record(before), policy_record(after))
            self.auditor.change(tx, context, Action.POLICY_UPDATED, caller, after, changed=difference)
            self._carry_over(tx, context, caller, after)
        return after

    def delete(
        self,
        caller: Caller,
        policy_id: UUID,
        context: RequestContext,
        *,
        expected_versions: Sequence[int] | None,
    ) -> None:
        """Delete the policy and those derived from it; `expected_versions` as in `replace`.

        `policies:write` is enough, whatever the policy gives: everyone who may grant access may also remove it.
        Raises `TrustPolicyNotFound`, `PreconditionFailed`.
        """
        with self.store.write() as tx:
            policy = _existing(tx, policy_id, expected_versions)
            self._remove_derived_from(tx, context, caller, policy)
            tx.policies.delete(policy.id)
            self.auditor.change(
                tx, context, Action.POLICY_DELETED, caller, policy, before=policy_record(policy)
            )

    def _issuer(self, written: str) -> str:
        """Return the issuer as written; raises `ValidationFailed` if it is not configured."""
        if written not in self.github_issuers:
            raise errors.ValidationFailed("issuer", errors.choice_reason(self.github_issuers))
        return written

    def _kept_or_written(self, before: TrustPolicy, written: str | None) -> str:
        """The issuer after a PUT: unchanged, unless the draft has another configured one.

        If only one is configured, any other value is ignored, as in all fields that the server sets.
        """
        is_ignored = len(self.github_issuers) == 1 and written not in self.github_issuers
        if written is None or written == before.issuer or is_ignored:
            return before.issuer
        return self._issuer(written)

    def _ids(
        self, tx: Transaction, draft: PolicyDraft, issuer: str, before: TrustPolicy | None
    ) -> dict[str, str | None]:
        """The ids that pin the repository: the draft's, else those known for its name, unless sent as `null`."""
        repository = (issuer, repository_key(draft.repository))
        known = [before] if before and (before.issuer, before.repository_key) == repository else []
        known += [] if known else self._pinned(tx, *repository)
        ids: dict[str, str | None] = {}
        for name in ("repository_id", "repository_owner_id"):
            candidates = [getattr(source, name) for source in (draft, *known)]
            ids[name] = None if json_name(name) in draft.nulls else next(filter(None, candidates), None)
        return ids

    def _pinned(self, tx: Transaction, issuer: str, key: str) -> list[TrustPolicy]:
        now = self.clock()
        named = tx.policies.for_repository(issuer, key)
        return [policy for policy in named if policy.is_live(now)]

    def _carry_over(
        self, tx: Transaction, context: RequestContext, caller: Caller, bootstrap: TrustPolicy
    ) -> None:
        """Change the derived policies along with their origin.

        If the agent has an equal policy, the derived one is deleted: nothing may keep an admin from changing the origin.
        """
        for derived in tx.policies.derived_from(bootstrap.id):
            carried = bootstrap.derived(
                id=derived.id,
                agent_id=derived.agent_id,
                created_at=derived.created_at,
                last_used_at=derived.last_used_at,
                version=derived.version + 1,
            )
            try:
                tx.policies.replace(carried)
            except errors.TrustPolicyAlreadyExists as taken:
                equal = taken.details.get("policyId")
                self._remove_derived(tx, context, caller, derived, equalTo=equal)
            else:
                difference = changes(policy_record(derived), policy_record(carried))
                self.auditor.change(tx, context, Action.POLICY_UPDATED, caller, carried, changed=difference)

    def _remove_derived_from(
        self, tx: Transaction, context: RequestContext, caller: Caller, origin: TrustPolicy
    ) -> None:
        for derived in tx.policies.derived_from(origin.id):
            self._remove_derived(tx, context, caller, derived)

    def _remove_derived(
        self, tx: Transaction, context: RequestContext, caller: Caller, derived: TrustPolicy, **details: Any
    ) -> None:
        tx.policies.delete(derived.id)
        origin = str(derived.derived_from)
        self.auditor.change(
            tx, context, Action.POLICY_DELETED, caller, derived, derivedFrom=origin, **details
        )


def _existing(
    tx: Transaction, policy_id: UUID, expected_versions: Sequence[int] | None = None
) -> TrustPolicy:
    policy = tx.policies.get(policy_id)
    if policy is None:
        raise errors.TrustPolicyNotFound("There is no trust policy with this id.")
    if expected_versions is not None and policy.version not in expected_versions:
        raise errors.PreconditionFailed(
            f"The policy is now at version {policy.version}; read it again before you change it."
        )
    return policy


def _check_grants(draft: PolicyDraft, services: Sequence[Service]) -> None:
    problem = grant_problem(draft.grants, services)
    if problem:
        raise errors.ValidationFailed(*problem)


def _check_rights(caller: Caller, draft: PolicyDraft) -> None:
    """Check that the caller holds what the draft gives, because a policy is a way to get a token.

    Grants at services are not checked: nobody holds their scopes at the provider, and
    `policies:write` covers granting them.
    """
    for scope in draft.scopes:
        if scope not in FREELY_GRANTED and not caller.holds(scope):
            raise _needs(scope, f"A policy can give {scope} only if its author holds it.")
        if scope in ONLY_ADMINS_GRANT and not caller.is_admin:
            raise _needs(scope, f"Only an admin can give {scope}: {_WHY_ADMINS[scope]}.")
    # Whatever its `scopes` are, a bootstrap token can register, change and decommission agents.
    if draft.agent_id is None and not caller.holds(AGENTS_WRITE):
        raise _needs(
            AGENTS_WRITE,
            f"A bootstrap policy, without agentId, gives {AGENTS_WRITE}, so its author must hold it.",
        )


def _needs(scope: str, message: str) -> errors.Forbidden:
    return errors.Forbidden(message, {"requiredScope": scope})


def _check_origin(policy: TrustPolicy, draft: PolicyDraft) -> None:
    if policy.derived_from and "derivedFrom" not in draft.nulls:
        raise errors.TrustPolicyDerived(
            "This policy is derived from a bootstrap policy; change that one, or send `derivedFrom` as null to detach "
            "this one.",
            {"derivedFrom": str(policy.derived_from)},
        )


def _check_agent(tx: Transaction, agent_id: UUID | None) -> None:
    if agent_id is None:
        return
    agent = tx.agents.get(agent_id)
    if agent is None:
        raise errors.AgentNotFound(
            "There is no agent with this agentId; register it first, or leave agentId out for a bootstrap policy."
        )
    if agent.status is AgentStatus.DECOMMISSIONED:
        raise errors.AgentDecommissioned("The agent was decommissioned, which is final; name another one.")
