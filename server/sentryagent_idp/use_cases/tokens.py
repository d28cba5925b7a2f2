"""Token introspection (RFC 7662), revocation (RFC 7009) and the client-credentials grant (RFC 6749, 4.4)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NotRequired

import msgspec
from typing_extensions import TypedDict

from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.audit import Action, RequestContext
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.domain.client import AuthenticatedClient
from sentryagent_idp.domain.records import Positive
from sentryagent_idp.errors import Forbidden, ScopeNotPermitted, Unauthorized, UnauthorizedClient
from sentryagent_idp.ports import Clock, NewTokenId, Store, Transaction
from sentryagent_idp.tokens import access_token
from sentryagent_idp.tokens.access_token import AccessTokenClaims
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.authentication import Authentication, revocation_reason
from sentryagent_idp.use_cases.key_ring import KeyRing


class ClientToken(TypedDict):
    """An access token (RFC 6749, section 5.1)."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: Positive
    scope: str


class Inactive(TypedDict):
    """RFC 7662: the token is not active."""

    active: Literal[False]


class Active(TypedDict):
    """RFC 7662: the token is active; `provenance` is the run that it was issued to."""

    active: Literal[True]
    scope: str
    client_id: str
    sub: str
    token_type: Literal["Bearer"]
    iss: str
    aud: str
    iat: int
    exp: int
    jti: str
    provenance: NotRequired[dict[str, str]]


@dataclass(frozen=True, slots=True)
class TokenService:
    """Introspection, revocation and the client-credentials grant; `token_ttl` is in seconds."""

    store: Store
    authentication: Authentication
    signing_keys: KeyRing
    auditor: Auditor
    clock: Clock
    new_token_id: NewTokenId
    issuer: str
    token_audience: str
    token_ttl: int

    def introspect(self, reader: Caller | AuthenticatedClient, unverified_token: str) -> Active | Inactive:
        """Return the RFC 7662 response to `reader`.

        The token is inactive if it is revoked, expired or unknown, its agent or client is not active, or it is not for
        `reader`: a service that only checks `active` would otherwise accept another service's token (RFC 7662, 4).
        """
        with self.store.read() as tx:
            caller = self._known(tx, unverified_token)
            if (
                caller is None
                or not self._is_for(tx, reader, caller)
                or revocation_reason(tx, caller, self.clock())
            ):
                return {"active": False}
        active: Active = {
            "active": True,
            "scope": scopes.render(caller.scopes),
            "client_id": caller.subject,
            "sub": caller.subject,
            "token_type": "Bearer",
            "iss": self.issuer,
            "aud": caller.audience,
            "iat": caller.iat,
            "exp": caller.exp,
            "jti": caller.jti,
        }
        if caller.provenance:
            active["provenance"] = dict(caller.provenance)
        return active

    def _is_for(self, tx: Transaction, reader: Caller | AuthenticatedClient, caller: Caller) -> bool:
        """Whether `reader` may see the token.

        Bearers see tokens for our API, a service's client sees those for its service, an admin sees both.
        """
        if isinstance(reader, Caller) and caller.audience == self.token_audience:
            return True
        if isinstance(reader, Caller) and not reader.is_admin:
            return False
        seen = caller.audience if isinstance(reader, Caller) else reader.service or ""
        return any(service.accepts(caller.audience, caller.iat) for service in tx.services.named([seen]))

    def revoke_own(self, unverified_token: str, context: RequestContext) -> None:
        """Revoke a token at its bearer's request; does nothing if it is no longer valid."""
        self._revoke(unverified_token, None, context, lambda _: True)

    def revoke_of_client(
        self, client: AuthenticatedClient, unverified_token: str, context: RequestContext
    ) -> None:
        """Revoke a token at the request of the authenticated client that it was issued to; else raises `Forbidden`."""
        if client.service is not None:
            raise Forbidden(
                "A service's client can only introspect tokens; revoke a token with itself as the Bearer, or as an admin."
            )
        self._revoke(
            unverified_token, client.client_id, context, lambda caller: caller.subject == client.client_id
        )

    def revoke(self, actor: Caller, unverified_token: str, context: RequestContext) -> None:
        """Revoke a token as an admin, or as the bearer of that very token.

        Raises `Forbidden` for any other token, even one with the same subject: a bootstrap token's subject is a
        repository's name, which can change hands. An unknown token is not an error (RFC 7009, 2.2).
        """
        is_admin = actor.is_admin and actor.holds(scopes.AGENTS_WRITE)
        self._revoke(
            unverified_token, actor.subject, context, lambda caller: is_admin or caller.jti == actor.jti
        )

    def issue_to_client(
        self, client: AuthenticatedClient, wanted: tuple[str, ...] | None, context: RequestContext
    ) -> ClientToken:
        """Issue a token to an authenticated client, with all its scopes or the requested ones.

        Raises `UnauthorizedClient` for the client of a service, `ScopeNotPermitted`, `DatabaseUnavailable`.
        """
        if client.service is not None:
            raise UnauthorizedClient(
                "A service's client can only introspect tokens; get tokens with the secret of an agent or an admin client."
            )
        requested = wanted or client.scopes
        excess = [scope for scope in requested if not scopes.satisfies(client.scopes, scope)]
        if excess:
            raise ScopeNotPermitted(scopes.render(excess), client.scopes, giver="client")
        granted = AuthenticatedClient(client.client_id, requested, client.agent_id)
        return self._issue(granted, self._ttl(client), context, grant="client_credentials")

    def _ttl(self, client: AuthenticatedClient) -> int:
        """The maximum lifetime of the client's tokens: none outlives the client, even for verifiers that never ask us."""
        if client.expires_at is None:
            return self.token_ttl
        left = int((client.expires_at - self.clock()).total_seconds())
        return min(self.token_ttl, max(1, left))

    def issue_to_admin(
        self, subject: str, wanted: tuple[str, ...], ttl: int, context: RequestContext
    ) -> ClientToken:
        """Issue a token to the command line and the person of `context`; `ttl` is capped at `token_ttl`."""
        client = AuthenticatedClient(subject, wanted)
        return self._issue(client, min(ttl, self.token_ttl), context, person=context.person)

    def _issue(
        self,
        client: AuthenticatedClient,
        lifetime: int,
        context: RequestContext,
        person: str | None = None,
        **details: str,
    ) -> ClientToken:
        """Issue a token with all scopes of the client, and audit it."""
        now = int(self.clock().timestamp())
        claims = AccessTokenClaims(
            iss=self.issuer,
            sub=client.client_id,
            aud=self.token_audience,
            client_id=client.client_id,
            scope=scopes.render(client.scopes),
            iat=now,
            exp=now + lifetime,
            jti=self.new_token_id(),
            person=person,
        )
        action = Action.TOKEN_ISSUED if client.agent_id else Action.ADMIN_TOKEN_ISSUED
        issue = {**details, "issuedJti": claims.jti, "scope": claims.scope, "expiresIn": lifetime}
        with self.store.write() as tx:
            token = access_token.issue(self.signing_keys.current(tx).active, claims)
            self.auditor.success(tx, context, action, claims.sub, agent_id=client.agent_id, details=issue)
        return {"access_token": token, "token_type": "Bearer", "expires_in": lifetime, "scope": claims.scope}

    def _known(self, tx: Transaction, unverified_token: str) -> Caller | None:
        try:
            return self.authentication.verify_for_any(tx, unverified_token)
        except Unauthorized:
            return None

    def _revoke(
        self,
        unverified_token: str,
        actor: str | None,
        context: RequestContext,
        is_allowed: Callable[[Caller], bool],
    ) -> None:
        """Revoke the token if `is_allowed` accepts its bearer; the actor is `actor`, by default the token's subject."""
        with self.store.read() as tx:  # before anything is locked, because strangers can send tokens too
            caller = self._known(tx, unverified_token)
        if caller is None:
            return
        if not is_allowed(caller):
            raise Forbidden(
                "The token belongs to another client; revoke it with itself as the Bearer, its client's secret or an admin token."
            )
        if actor is None:
            context = msgspec.structs.replace(context, person=caller.person)
        with self.store.write() as tx:
            if tx.revoked_tokens.contains(caller.jti):
                return
            tx.revoked_tokens.add(caller.jti, keep_until=datetime.fromtimestamp(caller.exp, UTC))
            self.auditor.success(
                tx,
                context,
                Action.TOKEN_REVOKED,
                actor or caller.subject,
                agent_id=caller.agent_id,
                repository=caller.provenance.get("repository"),
                details={"revokedJti": caller.jti, "subject": caller.subject},
            )
