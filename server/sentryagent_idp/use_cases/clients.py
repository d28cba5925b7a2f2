"""Create, list, rotate and revoke admin clients, which administer the provider, and clients of services."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.audit import Action, RequestContext
from sentryagent_idp.domain.caller import ADMIN_PREFIX, SERVICE_PREFIX
from sentryagent_idp.domain.client import Client, ClientStatus
from sentryagent_idp.domain.records import timestamp
from sentryagent_idp.errors import AdminRefused
from sentryagent_idp.ports import Clock, NewId, Store, Transaction
from sentryagent_idp.tokens import client_secret
from sentryagent_idp.use_cases.audit import Auditor


@dataclass(frozen=True, slots=True)
class ClientAdmin:
    """The use cases of clients."""

    store: Store
    auditor: Auditor
    clock: Clock
    new_id: NewId

    def create(
        self,
        actor: str,
        name: str,
        granted: tuple[str, ...],
        context: RequestContext,
        lifetime: timedelta | None = None,
    ) -> tuple[Client, str]:
        """Create an admin client; returns it and its secret, which is never shown again. Raises `DatabaseUnavailable`.

        The client and its tokens expire after `lifetime`, if one is given.
        """
        client, secret = self._new(ADMIN_PREFIX, name, granted, lifetime)
        with self.store.write() as tx:
            self._add(tx, context, actor, client)
        return client, secret

    def create_for_service(
        self,
        actor: str,
        name: str,
        identifier: str,
        context: RequestContext,
        lifetime: timedelta | None = None,
    ) -> tuple[Client, str]:
        """Create a client that introspects a service's tokens; returns it and its secret, which is never shown again.

        The client expires after `lifetime`, if one is given. Raises `AdminRefused` if the service does not exist, and
        `DatabaseUnavailable`.
        """
        client, secret = self._new(SERVICE_PREFIX, name, (), lifetime, service=identifier)
        with self.store.write() as tx:
            if not _is_storable(identifier) or not tx.services.named([identifier]):
                raise AdminRefused(
                    "--service: there is no service with this identifier; create it first (POST /api/v1/services)"
                )
            self._add(tx, context, actor, client)
        return client, secret

    def _new(
        self,
        prefix: str,
        name: str,
        granted: tuple[str, ...],
        lifetime: timedelta | None,
        service: str | None = None,
    ) -> tuple[Client, str]:
        secret, now = client_secret.generate(), self.clock()
        client = Client(
            client_id=f"{prefix}{self.new_id()}",
            name=name,
            scopes=granted,
            secret_hash=client_secret.hash_secret(secret),
            created_at=now,
            service=service,
            expires_at=None if lifetime is None else now + lifetime,
        )
        return client, secret

    def _add(self, tx: Transaction, context: RequestContext, actor: str, client: Client) -> None:
        tx.clients.add(client)
        self._audit(tx, context, Action.CLIENT_CREATED, actor, client)

    def all(self) -> Sequence[Client]:
        """Return all clients, including revoked ones, oldest first; raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            return tx.clients.all()

    def is_named_twice(self, client: Client) -> bool:
        """Whether another active client has the same name; raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            return tx.clients.named(client.name, self.clock()) > 1

    def rotate(
        self, actor: str, client_id: str, context: RequestContext, keep_old: timedelta | None = None
    ) -> tuple[Client, str]:
        """Give the client a new secret; the old one is refused from now on, or after `keep_old`.

        A secret kept by an earlier rotation is refused in any case: a client never has more than two secrets.
        Raises `AdminRefused` if the client does not exist or is not active, and `DatabaseUnavailable`.
        """
        secret = client_secret.generate()
        secret_hash = client_secret.hash_secret(secret)
        with self.store.write() as tx:
            before = self._live(tx, client_id)
            rotated = replace(
                before,
                secret_hash=secret_hash,
                old_secret_hash=None if keep_old is None else before.secret_hash,
                old_secret_until=None if keep_old is None else self.clock() + keep_old,
            )
            tx.clients.replace(rotated)
            self._audit(tx, context, Action.CLIENT_ROTATED, actor, rotated)
        return rotated, secret

    def revoke(self, actor: str, client_id: str, context: RequestContext) -> None:
        """Refuse the client's secrets and tokens from now on, in every process; raises the same errors as `rotate`."""
        with self.store.write() as tx:
            revoked = replace(self._live(tx, client_id), revoked_at=self.clock())
            tx.clients.replace(revoked)
            self._audit(tx, context, Action.CLIENT_REVOKED, actor, revoked)

    def _audit(
        self, tx: Transaction, context: RequestContext, action: Action, actor: str, client: Client
    ) -> None:
        details = {
            "clientId": client.client_id,
            "name": client.name,
            **({"service": client.service} if client.service else {"scope": scopes.render(client.scopes)}),
            **({"expiresAt": timestamp(client.expires_at)} if client.expires_at else {}),
            **({"oldSecretUntil": timestamp(client.old_secret_until)} if client.old_secret_until else {}),
        }
        self.auditor.success(tx, context, action, actor, details=details)

    def _live(self, tx: Transaction, client_id: str) -> Client:
        kind = "service client" if client_id.startswith(SERVICE_PREFIX) else "admin client"
        client = tx.clients.get(client_id) if _is_storable(client_id) else None
        if client is None:
            raise AdminRefused(f"There is no {kind} {client_id}; `sentryagent-idp clients list` shows them.")
        status = client.status(self.clock())
        if status is not ClientStatus.ACTIVE:
            raise AdminRefused(f"The {kind} {client_id} is {status}, which is final; create another one.")
        return client


def _is_storable(name: str) -> bool:
    """Whether the database can be queried for the name: a command-line argument may have bytes that are not UTF-8."""
    return name.isascii() and name.isprintable()
