"""Register, update, suspend and decommission agents."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sentryagent_idp.domain.agent import (
    Agent,
    AgentFilter,
    AgentStatus,
    RegisteredBy,
    may_see,
    unchangeable_field,
)
from sentryagent_idp.domain.audit import Action, RequestContext
from sentryagent_idp.domain.caller import Caller, CallerKind
from sentryagent_idp.domain.identity import repository_key
from sentryagent_idp.domain.records import Page, agent_record, changes
from sentryagent_idp.domain.trust_policy import TrustPolicy
from sentryagent_idp.errors import AgentAlreadyExists, AgentDecommissioned, AgentNotFound, Forbidden
from sentryagent_idp.ports import Clock, NewId, Store, Transaction
from sentryagent_idp.use_cases.audit import Auditor

_STATUS_ACTIONS = {
    AgentStatus.SUSPENDED: Action.AGENT_SUSPENDED,
    AgentStatus.ACTIVE: Action.AGENT_REACTIVATED,
}


@dataclass(frozen=True, slots=True)
class Registration:
    """The use cases of agents, limited to the agents that the caller may see and change."""

    store: Store
    auditor: Auditor
    clock: Clock
    new_id: NewId

    def register(self, caller: Caller, fields: Mapping[str, Any], context: RequestContext) -> Agent:
        """Create an agent and, if the caller's bootstrap policy has `trustRegistered`, the agent's own trust policy.

        `fields` are the fields of `Agent` that the caller sets. Without an `owner`, the agent belongs to the owner of the
        caller's repository, or to the caller. Raises `AgentAlreadyExists`, `Forbidden`, `DatabaseUnavailable`.
        """
        if caller.kind is CallerKind.AGENT:
            raise Forbidden("An agent cannot register agents; use a bootstrap token or an admin token.")
        with self.store.write() as tx:
            bootstrap = _bootstrap_policy(tx, caller)
            agent = self._new_agent(caller, fields, bootstrap)
            try:
                tx.agents.add(agent)
            except AgentAlreadyExists as taken:
                raise _taken(caller, tx.agents.by_email(agent.email)) from taken
            derived = self._trust(tx, bootstrap, agent)
            self.auditor.change(tx, context, Action.AGENT_CREATED, caller, agent, after=agent_record(agent))
            if derived:
                details = {"derivedFrom": str(derived.derived_from)}
                about = {**derived.in_audit, "details": details}
                self.auditor.success(tx, context, Action.POLICY_CREATED, caller.subject, **about)
        return agent

    def get(self, caller: Caller, agent_id: UUID) -> Agent:
        """Return the agent. Raises `AgentNotFound`, also if the caller may not see it."""
        with self.store.read() as tx:
            return _visible(tx, caller, agent_id)

    def page(self, caller: Caller, wanted: AgentFilter, *, page: int, limit: int) -> Page[Agent]:
        """One page of the agents that the caller may see."""
        visible = replace(
            wanted,
            registered_by_repository_id=caller.repository_id,
            registered_by_issuer=caller.issuer,
            agent_id=caller.agent_id,
        )
        with self.store.read() as tx:
            return tx.agents.page(visible, page=page, limit=limit)

    def update(
        self, caller: Caller, agent_id: UUID, fields: Mapping[str, Any], context: RequestContext
    ) -> Agent:
        """Change the given fields of the agent and keep the others.

        Raises `AgentNotFound`, `AgentDecommissioned`, `Forbidden`, `AgentAlreadyExists`.
        """
        with self.store.write() as tx:
            agent = _living(tx, caller, agent_id)
            field = unchangeable_field(caller, fields)
            if field:
                raise Forbidden(f"This token may not change {field}; an admin can.", {"field": field})
            changed = replace(agent, **fields)
            if changed == agent:
                return agent
            changed = replace(changed, updated_at=self.clock())
            try:
                tx.agents.replace(changed)
            except AgentAlreadyExists as taken:
                raise _taken(caller, tx.agents.by_email(changed.email)) from taken
            action = (
                Action.AGENT_UPDATED if changed.status is agent.status else _STATUS_ACTIONS[changed.status]
            )
            # An agent's `version` is that of its software; it does not count changes, as a policy's does.
            difference = changes(agent_record(agent), agent_record(changed), bookkeeping=("updatedAt",))
            self.auditor.change(tx, context, action, caller, changed, changed=difference)
        return changed

    def decommission(self, caller: Caller, agent_id: UUID, context: RequestContext) -> None:
        """Decommission the agent for good: its tokens are refused at once, and its email address stays taken.

        Raises `AgentNotFound`, `AgentDecommissioned`, `Forbidden`.
        """
        with self.store.write() as tx:
            agent = _living(tx, caller, agent_id)
            if caller.kind is CallerKind.AGENT:
                raise Forbidden("An agent cannot decommission itself; an admin or its repository can.")
            ended = replace(agent, status=AgentStatus.DECOMMISSIONED, updated_at=self.clock())
            tx.agents.replace(ended)
            self.auditor.change(tx, context, Action.AGENT_DECOMMISSIONED, caller, ended)

    def _new_agent(self, caller: Caller, fields: Mapping[str, Any], bootstrap: TrustPolicy | None) -> Agent:
        now = self.clock()
        repository = _registered_by(caller, bootstrap)
        owner = repository.repository.partition("/")[0] if repository else caller.subject
        return Agent(
            agent_id=self.new_id(),
            status=AgentStatus.ACTIVE,
            registered_by=repository,
            created_at=now,
            updated_at=now,
            **{**fields, "owner": fields["owner"] or owner},
        )

    def _trust(self, tx: Transaction, bootstrap: TrustPolicy | None, agent: Agent) -> TrustPolicy | None:
        """Create the agent's own policy if the bootstrap policy has `trustRegistered` and still applies."""
        run = agent.registered_by
        if (
            run is None
            or bootstrap is None
            or not bootstrap.trust_registered
            or not bootstrap.is_live(agent.created_at)
        ):
            return None
        # Since the token was issued, the policy may have been moved to another repository, or pinned to another one of
        # the same name; neither registered this agent. The exchange pins the policy, so a missing id was removed since.
        registrar = (run.issuer, repository_key(run.repository), run.repository_id)
        if (bootstrap.issuer, bootstrap.repository_key, bootstrap.repository_id) != registrar:
            return None
        derived = bootstrap.derived(
            id=self.new_id(),
            agent_id=agent.agent_id,
            created_at=agent.created_at,
            updated_at=agent.created_at,
            last_used_at=None,
            version=1,
        )
        tx.policies.add(derived)
        return derived


def _bootstrap_policy(tx: Transaction, caller: Caller) -> TrustPolicy | None:
    """The policy that a bootstrap token was issued under, or `None` if it is gone or the token is of another kind."""
    is_bootstrap = caller.kind is CallerKind.BOOTSTRAP
    return tx.policies.get(UUID(caller.provenance["policy_id"])) if is_bootstrap else None


def _registered_by(caller: Caller, bootstrap: TrustPolicy | None) -> RegisteredBy | None:
    if caller.kind is not CallerKind.BOOTSTRAP:
        return None
    run = caller.provenance
    issuer = caller.issuer or (bootstrap.issuer if bootstrap else None)
    return RegisteredBy(run["provider"], run["repository"], run["repository_id"], issuer)


def _visible(tx: Transaction, caller: Caller, agent_id: UUID) -> Agent:
    agent = tx.agents.get(agent_id)
    if agent is None or not may_see(caller, agent):
        raise AgentNotFound("There is no agent with this id that this token may see.")
    return agent


def _living(tx: Transaction, caller: Caller, agent_id: UUID) -> Agent:
    agent = _visible(tx, caller, agent_id)
    if agent.status is AgentStatus.DECOMMISSIONED:
        raise AgentDecommissioned("The agent was decommissioned, which is final; register another one.")
    return agent


def _taken(caller: Caller, other: Agent | None) -> AgentAlreadyExists:
    """Build the error; it names the other agent only if the caller may see it, so that nobody finds agents by email."""
    visible = other is not None and may_see(caller, other)
    return AgentAlreadyExists(
        "An agent with this e-mail address already exists; use that agent, or choose another address.",
        {"agentId": str(other.agent_id), "status": other.status.value} if other and visible else None,
    )
