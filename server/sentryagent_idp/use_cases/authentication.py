"""Who calls our API: the check of a Bearer token of ours (RFC 6750, RFC 9068)."""

from dataclasses import dataclass
from uuid import UUID

from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.agent import AgentStatus
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.errors import Unauthorized
from sentryagent_idp.ports import Clock, Store, Transaction
from sentryagent_idp.tokens import access_token
from sentryagent_idp.use_cases.key_ring import KeyRing
from sentryagent_idp.use_cases.rejections import RejectionCounter

_REMEDIES = {
    "token_revoked": "The token was revoked; get a new one.",
    "agent_not_active": "The token's agent is not active; an admin can lift a suspension.",
    "client_revoked": "The token's admin client was revoked; use another client.",
}


@dataclass(frozen=True, slots=True)
class Authentication:
    """Verifies access tokens of ours; one that is revoked, or whose agent or client is, is refused at once."""

    store: Store
    keys: KeyRing
    rejections: RejectionCounter
    issuer: str
    audience: str
    clock: Clock

    def authenticate(self, unverified_token: str, context: RequestContext) -> Caller:
        """The caller that the token stands for.

        What is refused is counted for the audit. Raises `Unauthorized`, `DatabaseUnavailable`.
        """
        try:
            with self.store.read() as tx:
                caller = self.verify(tx, unverified_token)
                reason = revocation_reason(tx, caller)
        except Unauthorized:
            self.rejections.note(Unauthorized.code, "token_refused", context.address)
            raise
        if reason:
            self.rejections.note(Unauthorized.code, reason, context.address, caller.subject)
            raise Unauthorized(_REMEDIES[reason])
        return caller

    def verify(self, tx: Transaction, unverified_token: str) -> Caller:
        """The caller by signature, issuer, audience and times alone; revocation is not looked at.

        Raises `Unauthorized`.
        """
        claims = access_token.verify(
            unverified_token,
            issuer=self.issuer,
            audience=self.audience,
            keys=self.keys.current(tx).by_kid,
            now=int(self.clock().timestamp()),
        )
        return Caller(
            subject=claims["sub"],
            scopes=scopes.parse(claims["scope"]),
            jti=claims["jti"],
            iat=claims["iat"],
            exp=claims["exp"],
            provenance=claims.get("provenance", {}),
        )


def revocation_reason(tx: Transaction, caller: Caller) -> str | None:
    """Why a genuine token counts no more, in a word of `_REMEDIES`, or `None`."""
    if tx.revoked_tokens.contains(caller.jti):
        return "token_revoked"
    if not agent_is_active(tx, caller.agent_id):
        return "agent_not_active"
    return None if _client_is_live(tx, caller.admin_client_id) else "client_revoked"


def agent_is_active(tx: Transaction, agent_id: UUID | None) -> bool:
    """Whether tokens of this agent count; trivially so where a token speaks for none."""
    return agent_id is None or tx.agents.status(agent_id) is AgentStatus.ACTIVE


def _client_is_live(tx: Transaction, client_id: str | None) -> bool:
    client = None if client_id is None else tx.clients.get(client_id)
    return client_id is None or (client is not None and client.is_live)
