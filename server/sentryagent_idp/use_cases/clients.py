"""Admin clients: programs that administer the provider; and the proof of a client's secret, an agent's as well."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.agent import MAX_LIVE_CREDENTIALS
from sentryagent_idp.domain.audit import Action, RequestContext
from sentryagent_idp.domain.caller import ADMIN_PREFIX
from sentryagent_idp.domain.client import AdminClient, AuthenticatedClient
from sentryagent_idp.errors import AdminRefused, InvalidClient
from sentryagent_idp.ports import Clock, NewId, Store, Transaction
from sentryagent_idp.tokens import client_secret
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.rejections import NOBODY, RejectionCounter
from sentryagent_idp.use_cases.secret_hashing import SecretHashing

AGENT_SCOPES = (scopes.AGENTS_READ,)
"""What an agent gets by its client secret: to read itself."""


@dataclass(frozen=True, slots=True)
class ClientAdmin:
    """The use cases of admin clients."""

    store: Store
    auditor: Auditor
    clock: Clock
    new_id: NewId

    def create(
        self, actor: str, name: str, granted: tuple[str, ...], context: RequestContext
    ) -> tuple[AdminClient, str]:
        """A new client and its secret, which is never shown again; raises `DatabaseUnavailable`."""
        secret = client_secret.generate()
        client = AdminClient(
            client_id=f"{ADMIN_PREFIX}{self.new_id()}",
            name=name,
            scopes=granted,
            secret_hash=client_secret.fingerprint(secret),
            created_at=self.clock(),
        )
        with self.store.write() as tx:
            tx.clients.add(client)
            self._audit(tx, context, Action.CLIENT_CREATED, actor, client)
        return client, secret

    def all(self) -> Sequence[AdminClient]:
        """Every client, revoked ones too, oldest first; raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            return tx.clients.all()

    def rotate(self, actor: str, client_id: str, context: RequestContext) -> tuple[AdminClient, str]:
        """A new secret for the client; the old one is refused from now on.

        Raises `AdminRefused` where there is no such client or it is revoked, `DatabaseUnavailable`.
        """
        secret = client_secret.generate()
        secret_hash = client_secret.fingerprint(secret)
        with self.store.write() as tx:
            rotated = replace(_live(tx, client_id), secret_hash=secret_hash)
            tx.clients.replace(rotated)
            self._audit(tx, context, Action.CLIENT_ROTATED, actor, rotated)
        return rotated, secret

    def revoke(self, actor: str, client_id: str, context: RequestContext) -> None:
        """Refuse the client's secret and its tokens from now on, in every process; raises as `rotate`."""
        with self.store.write() as tx:
            revoked = replace(_live(tx, client_id), revoked_at=self.clock())
            tx.clients.replace(revoked)
            self._audit(tx, context, Action.CLIENT_REVOKED, actor, revoked)

    def _audit(
        self, tx: Transaction, context: RequestContext, action: Action, actor: str, client: AdminClient
    ) -> None:
        details = {
            "clientId": client.client_id,
            "name": client.name,
            "scope": scopes.render(client.scopes),
        }
        self.auditor.success(tx, context, action, actor, details=details)


def _live(tx: Transaction, client_id: str) -> AdminClient:
    client = tx.clients.get(client_id) if client_id.isascii() else None
    if client is None:
        raise AdminRefused(
            f"There is no admin client {client_id}; `sentryagent-idp clients list` shows them."
        )
    if not client.is_live:
        raise AdminRefused(f"The admin client {client_id} is revoked, which is final; create another one.")
    return client


@dataclass(frozen=True, slots=True)
class ClientAuthentication:
    """Checks a client's id and secret (RFC 6749, 2.3.1); what fails is counted for the audit."""

    store: Store
    clock: Clock
    rejections: RejectionCounter
    hashing: SecretHashing

    def authenticate(
        self, client_id: str, unverified_secret: str, context: RequestContext
    ) -> AuthenticatedClient:
        """The client that the secret belongs to.

        One hash is checked, also where there is no such client, so that the time does not tell (federation-security
        B21). Raises `InvalidClient`, `RateLimited`, `DatabaseUnavailable`.
        """
        with self.store.read() as tx:
            client, hashes = self._look_up(tx, client_id, unverified_secret)
        proven = self.hashing.matches_any(hashes or [client_secret.decoy()], unverified_secret)
        if client is None or not proven:
            self._count(client, context)
            raise InvalidClient("The client_id or the client_secret is wrong, or the client is not active.")
        return client

    def _look_up(
        self, tx: Transaction, client_id: str, unverified_secret: str
    ) -> tuple[AuthenticatedClient | None, list[str]]:
        """The client that an id names, if it is active, and the hashes that the secret may match."""
        number = _uuid(client_id.removeprefix(ADMIN_PREFIX))
        if number is None:
            return None, []
        if client_id.startswith(ADMIN_PREFIX):
            admin = tx.clients.get(client_id)
            if admin is None or not admin.is_live:
                return None, []
            return AuthenticatedClient(admin.client_id, admin.scopes), [admin.secret_hash]
        agent, hashes = tx.agents.get(number), self._hashes(tx, number, unverified_secret)
        if agent is None or not agent.is_active:
            return None, []
        return AuthenticatedClient(str(number), AGENT_SCOPES, number), hashes

    def _hashes(self, tx: Transaction, agent_id: UUID, unverified_secret: str) -> list[str]:
        """The hash of a live credential that the secret can match.

        Hashes that were stored without a digest cannot be told apart, so an agent that still has some costs more than
        one, and never more than an agent may have now.
        """
        live = [credential.secret_hash for credential in tx.credentials.live(agent_id, self.clock())]
        found = [stored for stored in live if client_secret.is_of(stored, unverified_secret)][:1]
        undigested = [stored for stored in live if not client_secret.has_digest(stored)]
        return found or undigested[-MAX_LIVE_CREDENTIALS:]

    def _count(self, client: AuthenticatedClient | None, context: RequestContext) -> None:
        """Counted, not audited one by one: anybody can guess for ever."""
        actor = client.client_id if client else NOBODY
        self.rejections.note(InvalidClient.code, "secret_refused", context.address, actor)


def _uuid(text: str) -> UUID | None:
    """The id in its usual form; `uuid.UUID` alone would read others, such as one in braces."""
    try:
        number = UUID(text)
    except ValueError:
        return None
    return number if str(number) == text.lower() else None
