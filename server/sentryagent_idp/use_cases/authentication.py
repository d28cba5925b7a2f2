"""Authenticate API callers by our access tokens (RFC 6750, RFC 9068), and clients by id and secret (RFC 6749, 2.3.1)."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sentryagent_idp.concurrency.policy_snapshot import agent_is_active
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.agent import MAX_LIVE_CREDENTIALS
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.caller import ADMIN_PREFIX, SERVICE_PREFIX, Caller
from sentryagent_idp.domain.client import AuthenticatedClient, ClientStatus
from sentryagent_idp.domain.trust_policy import is_use_due
from sentryagent_idp.errors import DatabaseUnavailable, InvalidClient, Unauthorized
from sentryagent_idp.ports import Clock, Store, Transaction
from sentryagent_idp.tokens import access_token, client_secret
from sentryagent_idp.use_cases.key_ring import KeyRing
from sentryagent_idp.use_cases.refusals import NOBODY, RefusalCounter
from sentryagent_idp.use_cases.secret_hashing import SecretHashing

AGENT_SCOPES = (scopes.AGENTS_READ,)
"""The scopes of tokens for an agent's client secret: the agent may read itself."""

_REMEDIES = {
    "token_revoked": "The token was revoked; get a new one.",
    "agent_not_active": "The token's agent is not active; an admin can lift a suspension.",
    "client_revoked": "The token's admin client was revoked or has expired; use another client.",
}


@dataclass(frozen=True, slots=True)
class Authentication:
    """Verifies our access tokens; refuses one as soon as it is revoked or its agent or admin client is not active."""

    store: Store
    keys: KeyRing
    refusal_counter: RefusalCounter
    issuer: str
    audience: str
    clock: Clock

    def authenticate(self, unverified_token: str, context: RequestContext) -> Caller:
        """Return the bearer of the token.

        Refusals are counted for the audit. Raises `Unauthorized`, `DatabaseUnavailable`.
        """
        try:
            with self.store.read() as tx:
                caller = self.verify(tx, unverified_token)
                reason = revocation_reason(tx, caller, self.clock())
        except Unauthorized:
            self.refusal_counter.count(Unauthorized.code, "token_refused", context.address)
            raise
        if reason:
            self.refusal_counter.count(Unauthorized.code, reason, context.address, caller.subject)
            raise Unauthorized(_REMEDIES[reason])
        return caller

    def verify(self, tx: Transaction, unverified_token: str) -> Caller:
        """Verify signature, issuer, audience and times, but not revocation, and return the caller.

        Raises `Unauthorized`, also for a token issued for a service: it gives rights at that service and none here.
        """
        return self._verified(tx, unverified_token, self.audience)

    def verify_for_any(self, tx: Transaction, unverified_token: str) -> Caller:
        """Verify a token like `verify`, but for any audience: to introspect or revoke it, never to authenticate by it."""
        return self._verified(tx, unverified_token, None)

    def _verified(self, tx: Transaction, unverified_token: str, audience: str | None) -> Caller:
        claims = access_token.verify(
            unverified_token,
            issuer=self.issuer,
            audience=audience,
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
            audience=claims["aud"],
            person=claims.get("person"),
        )


def revocation_reason(tx: Transaction, caller: Caller, now: datetime) -> str | None:
    """Return why a genuine token is no longer accepted, as a key of `_REMEDIES`, or `None` if it is."""
    if tx.revoked_tokens.contains(caller.jti):
        return "token_revoked"
    if not agent_is_active(tx, caller.agent_id):
        return "agent_not_active"
    if caller.admin_client_id is None:
        return None
    client = tx.clients.get(caller.admin_client_id)
    return None if client and client.status(now) is ClientStatus.ACTIVE else "client_revoked"


@dataclass(frozen=True, slots=True)
class ClientAuthentication:
    """Checks a client's id and secret (RFC 6749, 2.3.1); failures are counted for the audit."""

    store: Store
    clock: Clock
    refusal_counter: RefusalCounter
    hashing: SecretHashing
    _used: dict[str, datetime] = field(default_factory=dict)
    """When this process last recorded a use, by client."""

    def authenticate(
        self, client_id: str, unverified_secret: str, context: RequestContext
    ) -> AuthenticatedClient:
        """Return the client that the secret belongs to.

        A hash is checked even if there is no such client, so that the response time does not reveal this (B21).
        Raises `InvalidClient`, `RateLimited`, `DatabaseUnavailable`.
        """
        with self.store.read() as tx:
            client, hashes = self._look_up(tx, client_id, unverified_secret)
        matches = self.hashing.matches_any(hashes or [client_secret.decoy()], unverified_secret)
        if client is None or not matches:
            # Counted, not audited one by one: anybody can guess without limit.
            actor = client.client_id if client else NOBODY
            self.refusal_counter.count(InvalidClient.code, "secret_refused", context.address, actor)
            raise InvalidClient("The client_id or the client_secret is wrong, or the client is not active.")
        if client.agent_id is None:
            self._record_use(client.client_id)
        return client

    def _record_use(self, client_id: str) -> None:
        """Update the client's `last_used_at`, at most once a minute."""
        now = self.clock()
        if not is_use_due(self._used.get(client_id), now):
            return
        self._used[client_id] = now
        # Introspection only reads, so a database that cannot be written must not stop it.
        with suppress(DatabaseUnavailable), self.store.write() as tx:
            tx.clients.mark_used(client_id, now)

    def _look_up(
        self, tx: Transaction, client_id: str, unverified_secret: str
    ) -> tuple[AuthenticatedClient | None, list[str]]:
        """Return the client with this id, if it is active, and the hashes that the secret may match."""
        prefix = next((kind for kind in (ADMIN_PREFIX, SERVICE_PREFIX) if client_id.startswith(kind)), "")
        number = _uuid(client_id.removeprefix(prefix))
        if number is None:
            return None, []
        if prefix:
            found = tx.clients.get(client_id)
            if found is None or found.status(self.clock()) is not ClientStatus.ACTIVE:
                return None, []
            client = AuthenticatedClient(
                found.client_id, found.scopes, service=found.service, expires_at=found.expires_at
            )
            return client, _possible(found.secret_hashes(self.clock()), unverified_secret)
        agent, credentials = tx.agents.get(number), tx.credentials.live(number, self.clock())
        if agent is None or not agent.is_active:
            return None, []
        hashes = _possible([credential.secret_hash for credential in credentials], unverified_secret)
        return AuthenticatedClient(str(number), AGENT_SCOPES, number), hashes


def _possible(live: Sequence[str], unverified_secret: str) -> list[str]:
    """Return the one hash, among those of the client's live secrets, that the secret can match.

    Hashes that were stored without a digest cannot be told apart, so a client that still has some costs several
    checks, but never more than an agent may have credentials now.
    """
    found = [stored for stored in live if client_secret.has_digest_of(stored, unverified_secret)][:1]
    undigested = [stored for stored in live if not client_secret.has_digest(stored)]
    return found or undigested[-MAX_LIVE_CREDENTIALS:]


def _uuid(text: str) -> UUID | None:
    """Parse an id in its usual form only; `uuid.UUID` also accepts others, such as one in braces."""
    try:
        number = UUID(text)
    except ValueError:
        return None
    return number if str(number) == text.lower() else None
