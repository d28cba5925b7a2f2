"""Trust policies as their admins see them: created, read, replaced whole, deleted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from server.domain.agent import AgentStatus
from server.domain.audit import Action, RequestContext
from server.domain.caller import Caller
from server.domain.identity import repository_key
from server.domain.records import changes, policy_record
from server.domain.scopes import FREELY_GRANTED
from server.domain.trust_policy import Conditions, TrustPolicy
from server.errors import (
    AgentDecommissioned,
    AgentNotFound,
    Forbidden,
    PreconditionFailed,
    TrustPolicyNotFound,
)
from server.ports import Clock, NewId, Page, PolicyFilter, Store, Transaction
from server.use_cases.auditing import Auditor


@dataclass(frozen=True, slots=True)
class PolicyDraft:
    """A policy as its admin writes it; `unpinned` names the ids that were written as `null`."""

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
    unpinned: frozenset[str] = frozenset()

    @property
    def content(self) -> dict[str, Any]:
        """What the draft says about the policy, without the ids of its repository."""
        ids = {"repository_id", "repository_owner_id", "unpinned"}
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ids}


@dataclass(frozen=True, slots=True)
class PolicyAdmin:
    """The use cases of the trust-policy resource; `github_issuer` is written into every policy."""

    store: Store
    auditor: Auditor
    clock: Clock
    new_id: NewId
    github_issuer: str

    def create(self, caller: Caller, draft: PolicyDraft, context: RequestContext) -> TrustPolicy:
        """Store a new policy.

        Raises `Forbidden`, `AgentNotFound`, `AgentDecommissioned`, `TrustPolicyAlreadyExists`.
        """
        _check_scopes(caller, draft.scopes)
        now = self.clock()
        with self.store.write() as tx:
            _check_agent(tx, draft.agent_id)
            repository_id, owner_id = self._ids(tx, draft, None)
            policy = TrustPolicy(
                id=self.new_id(),
                issuer=self.github_issuer,
                created_at=now,
                updated_at=now,
                repository_id=repository_id,
                repository_owner_id=owner_id,
                **draft.content,
            )
            tx.policies.add(policy)
            self._audit(tx, context, Action.POLICY_CREATED, caller, policy, after=policy_record(policy))
        return policy

    def get(self, policy_id: UUID) -> TrustPolicy:
        """The policy; raises `TrustPolicyNotFound`."""
        with self.store.read() as tx:
            return _existing(tx, policy_id)

    def page(self, wanted: PolicyFilter, *, page: int, limit: int) -> Page[TrustPolicy]:
        """One page of the policies."""
        with self.store.read() as tx:
            return tx.policies.page(wanted, page=page, limit=limit)

    def replace(
        self,
        caller: Caller,
        policy_id: UUID,
        draft: PolicyDraft,
        context: RequestContext,
        *,
        expected_versions: Sequence[int] | None,
    ) -> TrustPolicy:
        """Replace the policy whole, so that no old condition survives unseen (federation-security B25).

        Its derived policies change with it, or go with `trustRegistered`. `expected_versions` is what `If-Match`
        allows; `None` allows any. Raises as `create`, and `TrustPolicyNotFound`, `PreconditionFailed`.
        """
        _check_scopes(caller, draft.scopes)
        with self.store.write() as tx:
            before = _existing(tx, policy_id)
            if expected_versions is not None and before.version not in expected_versions:
                raise PreconditionFailed(
                    f"The policy is at version {before.version} by now; read it again before you change it."
                )
            _check_agent(tx, draft.agent_id)
            repository_id, owner_id = self._ids(tx, draft, before)
            after = replace(
                before,
                issuer=self.github_issuer,
                repository_id=repository_id,
                repository_owner_id=owner_id,
                updated_at=self.clock(),
                version=before.version + 1,
                **draft.content,
            )
            tx.policies.replace(after)
            difference = changes(policy_record(before), policy_record(after))
            self._audit(tx, context, Action.POLICY_UPDATED, caller, after, changed=difference)
            self._carry_over(tx, context, caller, after)
        return after

    def delete(self, caller: Caller, policy_id: UUID, context: RequestContext) -> None:
        """Remove the policy and those derived from it; raises `TrustPolicyNotFound`."""
        with self.store.write() as tx:
            policy = _existing(tx, policy_id)
            for derived in tx.policies.derived_from(policy.id):
                self._audit(tx, context, Action.POLICY_DELETED, caller, derived, derivedFrom=str(policy.id))
            tx.policies.delete(policy.id)
            self._audit(tx, context, Action.POLICY_DELETED, caller, policy, before=policy_record(policy))

    def _ids(
        self, tx: Transaction, draft: PolicyDraft, before: TrustPolicy | None
    ) -> tuple[str | None, str | None]:
        """The ids that pin the name: the draft's, else those already known for the name, unless written as `null`."""
        here = (self.github_issuer, repository_key(draft.repository))
        known = [before] if before and (before.issuer, before.repository_key) == here else []
        known += [] if known else self._pinned(tx, draft.repository)
        wanted = (
            ("repositoryId", draft.repository_id, [policy.repository_id for policy in known]),
            (
                "repositoryOwnerId",
                draft.repository_owner_id,
                [policy.repository_owner_id for policy in known],
            ),
        )
        chosen = [
            None if name in draft.unpinned else given or next(filter(None, others), None)
            for name, given, others in wanted
        ]
        return chosen[0], chosen[1]

    def _pinned(self, tx: Transaction, repository: str) -> list[TrustPolicy]:
        now = self.clock()
        named = tx.policies.for_repository(self.github_issuer, repository_key(repository))
        return [policy for policy in named if policy.is_live(now)]

    def _carry_over(
        self, tx: Transaction, context: RequestContext, caller: Caller, bootstrap: TrustPolicy
    ) -> None:
        """Change the derived policies with their origin; without `trustRegistered` they lose their ground."""
        for derived in tx.policies.derived_from(bootstrap.id):
            if not bootstrap.trust_registered:
                tx.policies.delete(derived.id)
                self._audit(
                    tx, context, Action.POLICY_DELETED, caller, derived, derivedFrom=str(bootstrap.id)
                )
                continue
            carried = replace(
                bootstrap,
                id=derived.id,
                agent_id=derived.agent_id,
                trust_registered=False,
                derived_from=bootstrap.id,
                created_at=derived.created_at,
                last_used_at=derived.last_used_at,
                version=derived.version + 1,
            )
            tx.policies.replace(carried)
            difference = changes(policy_record(derived), policy_record(carried))
            self._audit(tx, context, Action.POLICY_UPDATED, caller, carried, changed=difference)

    def _audit(
        self,
        tx: Transaction,
        context: RequestContext,
        action: Action,
        caller: Caller,
        policy: TrustPolicy,
        **details: Any,
    ) -> None:
        self.auditor.success(
            tx,
            context,
            action,
            caller.subject,
            agent_id=policy.agent_id,
            policy_id=policy.id,
            policy_version=policy.version,
            repository=policy.repository,
            details={"tokenJti": caller.jti, **details},
        )


def _existing(tx: Transaction, policy_id: UUID) -> TrustPolicy:
    policy = tx.policies.get(policy_id)
    if policy is None:
        raise TrustPolicyNotFound("There is no trust policy with this id.")
    return policy


def _check_scopes(caller: Caller, wanted: Sequence[str]) -> None:
    """Nobody gives away what they do not hold: a policy is a way to get a token (federation-security R-ADM-1)."""
    for scope in wanted:
        if scope not in FREELY_GRANTED and not caller.holds(scope):
            raise Forbidden(
                f"A policy can give {scope} only if its author holds it.", {"requiredScope": scope}
            )


def _check_agent(tx: Transaction, agent_id: UUID | None) -> None:
    if agent_id is None:
        return
    agent = tx.agents.get(agent_id)
    if agent is None:
        raise AgentNotFound(
            "There is no agent with this agentId; register it first, or leave agentId out for a bootstrap policy."
        )
    if agent.status is AgentStatus.DECOMMISSIONED:
        raise AgentDecommissioned("The agent was decommissioned, which is final; name another one.")
