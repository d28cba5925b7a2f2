"""Generate, rotate and revoke client secrets of agents, for use outside GitHub."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sentryagent_idp import errors
from sentryagent_idp.domain.agent import MAX_LIVE_CREDENTIALS, Agent, AgentStatus, Credential
from sentryagent_idp.domain.audit import Action, RequestContext
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.domain.records import Page
from sentryagent_idp.ports import Clock, NewId, Store, Transaction
from sentryagent_idp.tokens import client_secret
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.secret_hashing import SecretHashing


@dataclass(frozen=True, slots=True)
class CredentialAdmin:
    """The use cases of an agent's credentials; only admins may use them."""

    store: Store
    auditor: Auditor
    clock: Clock
    new_id: NewId
    hashing: SecretHashing

    def generate(
        self, caller: Caller, agent_id: UUID, expires_at: datetime | None, context: RequestContext
    ) -> tuple[Credential, str]:
        """Create a credential; returns it and its secret, which is never shown again.

        Raises `Forbidden`, `ValidationFailed`, `AgentNotFound`, `AgentDecommissioned`, `TooManyCredentials`, `RateLimited`.
        """
        _check_admin(caller)
        now = self.clock()
        if expires_at is not None and expires_at <= now:
            raise errors.ValidationFailed("expiresAt", "it must be in the future")
        secret = client_secret.generate()
        credential = Credential(
            credential_id=self.new_id(),
            agent_id=agent_id,
            secret_hash=self.hashing.hash_secret(secret),
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
        )
        with self.store.write() as tx:
            _living(tx, agent_id)
            _check_number(tx, agent_id, now)
            tx.credentials.add(credential)
            self.auditor.change(tx, context, Action.CREDENTIAL_GENERATED, caller, credential)
        return credential, secret

    def page(self, caller: Caller, agent_id: UUID, *, page: int, limit: int) -> Page[Credential]:
        """One page of the agent's credentials, including revoked ones; raises `Forbidden`, `AgentNotFound`."""
        _check_admin(caller)
        with self.store.read() as tx:
            _existing(tx, agent_id)
            credentials = tx.credentials.of_agent(agent_id)
        return Page(credentials[(page - 1) * limit : page * limit], len(credentials))

    def rotate(
        self, caller: Caller, agent_id: UUID, credential_id: UUID, context: RequestContext
    ) -> tuple[Credential, str]:
        """Give the credential a new secret; the old one is refused from now on.

        Raises `Forbidden`, `AgentNotFound`, `AgentDecommissioned`, `CredentialNotFound` (also if it is revoked),
        `RateLimited`.
        """
        _check_admin(caller)
        secret = client_secret.generate()
        secret_hash = self.hashing.hash_secret(secret)
        with self.store.write() as tx:
            _living(tx, agent_id)
            rotated = replace(_unrevoked(tx, agent_id, credential_id), secret_hash=secret_hash)
            tx.credentials.replace(rotated)
            self.auditor.change(tx, context, Action.CREDENTIAL_ROTATED, caller, rotated)
        return rotated, secret

    def revoke(self, caller: Caller, agent_id: UUID, credential_id: UUID, context: RequestContext) -> None:
        """Refuse the credential's secret from now on; raises `Forbidden`, `AgentNotFound`, `CredentialNotFound`."""
        _check_admin(caller)
        with self.store.write() as tx:
            _existing(tx, agent_id)
            revoked = replace(_unrevoked(tx, agent_id, credential_id), revoked_at=self.clock())
            tx.credentials.replace(revoked)
            self.auditor.change(tx, context, Action.CREDENTIAL_REVOKED, caller, revoked)


def _check_admin(caller: Caller) -> None:
    if not caller.is_admin:
        raise errors.Forbidden("Only an admin can manage credentials; use an admin token.")


def _existing(tx: Transaction, agent_id: UUID) -> Agent:
    agent = tx.agents.get(agent_id)
    if agent is None:
        raise errors.AgentNotFound("There is no agent with this id.")
    return agent


def _living(tx: Transaction, agent_id: UUID) -> Agent:
    agent = _existing(tx, agent_id)
    if agent.status is AgentStatus.DECOMMISSIONED:
        raise errors.AgentDecommissioned(
            "The agent was decommissioned, which is final; register another one."
        )
    return agent


def _check_number(tx: Transaction, agent_id: UUID, now: datetime) -> None:
    """Raise `TooManyCredentials` if the agent, whose row is locked, already has the most live credentials allowed."""
    if len(tx.credentials.live(agent_id, now)) >= MAX_LIVE_CREDENTIALS:
        raise errors.TooManyCredentials(
            f"The agent has {MAX_LIVE_CREDENTIALS} live credentials, the maximum; revoke one, or rotate one instead."
        )


def _unrevoked(tx: Transaction, agent_id: UUID, credential_id: UUID) -> Credential:
    credential = tx.credentials.get(agent_id, credential_id)
    if credential is None or credential.revoked_at is not None:
        raise errors.CredentialNotFound("The agent has no live credential with this id.")
    return credential
