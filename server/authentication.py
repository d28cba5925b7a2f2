"""Who calls our API: the check of a Bearer token of ours (RFC 6750, RFC 9068)."""

from dataclasses import dataclass
from uuid import UUID

from server.domain import scopes
from server.domain.caller import Caller
from server.errors import Unauthorized
from server.key_ring import KeyRing
from server.ports import Clock, Store, Transaction
from server.tokens import access_token


@dataclass(frozen=True, slots=True)
class Authentication:
    """Verifies access tokens of ours; a revoked token, and one of an agent that is not active, is refused at once."""

    store: Store
    keys: KeyRing
    issuer: str
    audience: str
    clock: Clock

    def authenticate(self, unverified_token: str) -> Caller:
        """The caller that the token stands for.

        Raises `Unauthorized` with the reason, `DatabaseUnavailable`.
        """
        with self.store.read() as tx:
            caller = self.verify(tx, unverified_token)
            if tx.revoked_tokens.contains(caller.jti):
                raise Unauthorized("The token was revoked; get a new one.")
            if not agent_is_active(tx, caller.agent_id):
                raise Unauthorized("The token's agent is not active; an admin can lift a suspension.")
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


def agent_is_active(tx: Transaction, agent_id: UUID | None) -> bool:
    """Whether tokens of this agent count; trivially so where a token speaks for none."""
    if agent_id is None:
        return True
    agent = tx.agents.get(agent_id)
    return agent is not None and agent.is_active
