"""The administration of services: create, read, replace and delete them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sentryagent_idp import errors
from sentryagent_idp.domain.audit import Action, AuditFilter, RequestContext
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.domain.records import Page, changes, service_record
from sentryagent_idp.domain.service import OwnNames, Service, ServiceFilter, ServiceScope
from sentryagent_idp.domain.trust_policy import TrustPolicy
from sentryagent_idp.ports import Clock, NewId, Store, Transaction
from sentryagent_idp.use_cases.audit import Auditor

_MOST_NAMED = 10
"""The most policies that a refusal names; it always says how many there are."""
_MOST_DELETED = 1000
"""How many of the services deleted in the current second are examined."""


@dataclass(frozen=True, slots=True)
class ServiceDraft:
    """A service as its admin writes it; without `identifier`, the identifier stays as it is."""

    identifier: str | None
    description: str | None
    scopes: tuple[ServiceScope, ...]
    max_ttl: int | None


@dataclass(frozen=True, slots=True)
class ServiceAdmin:
    """The use cases of the service resource; all raise `DatabaseUnavailable`."""

    store: Store
    auditor: Auditor
    clock: Clock
    new_id: NewId
    own_names: OwnNames
    rest: Callable[[float], object] = time.sleep

    def create(
        self, caller: Caller, identifier: str, draft: ServiceDraft, context: RequestContext
    ) -> Service:
        """Store a new service; raises `ValidationFailed`, `ServiceAlreadyExists`.

        Takes up to a second if another service with the identifier was deleted in the current second.
        """
        problem = self.own_names.problem(identifier)
        if problem:
            raise errors.ValidationFailed("identifier", problem)
        now = self.clock()
        with self.store.write() as tx:
            created_at = _beginning(tx, identifier, now)
            service = Service(
                service_id=self.new_id(),
                identifier=identifier,
                description=draft.description,
                scopes=draft.scopes,
                max_ttl=draft.max_ttl,
                created_at=created_at,
                updated_at=created_at,
            )
            tx.services.add(service)
            self.auditor.change(
                tx, context, Action.SERVICE_CREATED, caller, service, after=service_record(service)
            )
        if created_at > now:
            self.rest((created_at - now).total_seconds())
        return service

    def get(self, service_id: UUID) -> Service:
        """The service; raises `ServiceNotFound`."""
        with self.store.read() as tx:
            return _existing(tx, service_id)

    def page(self, wanted: ServiceFilter, *, page: int, limit: int) -> Page[Service]:
        """One page of the services."""
        with self.store.read() as tx:
            return tx.services.page(wanted, page=page, limit=limit)

    def replace(
        self,
        caller: Caller,
        service_id: UUID,
        draft: ServiceDraft,
        context: RequestContext,
        *,
        expected_versions: Sequence[int] | None,
    ) -> Service:
        """Replace the whole service; `expected_versions` has the versions that `If-Match` allows, `None` allows any.

        Raises `ServiceNotFound`, `PreconditionFailed`, `ValidationFailed` for another identifier, and `ServiceInUse`
        if a policy grants a scope that would be removed.
        """
        with self.store.write() as tx:
            before = _existing(tx, service_id, expected_versions)
            if draft.identifier not in {None, before.identifier}:
                raise errors.ValidationFailed(
                    "identifier",
                    "it never changes, because services compare it; create another service instead",
                )
            after = replace(
                before,
                description=draft.description,
                scopes=draft.scopes,
                max_ttl=draft.max_ttl,
                updated_at=self.clock(),
                version=before.version + 1,
            )
            _check_dropped(tx, before, after)
            tx.services.replace(after)
            difference = changes(service_record(before), service_record(after))
            self.auditor.change(tx, context, Action.SERVICE_UPDATED, caller, after, changed=difference)
        return after

    def delete(
        self,
        caller: Caller,
        service_id: UUID,
        context: RequestContext,
        *,
        expected_versions: Sequence[int] | None,
    ) -> None:
        """Delete the service; raises `ServiceNotFound`, `PreconditionFailed`, `ServiceInUse`."""
        with self.store.write() as tx:
            service = _existing(tx, service_id, expected_versions)
            policies, clients = (
                tx.policies.granting(service.identifier),
                tx.clients.bound_to(service.identifier, self.clock()),
            )
            if policies or clients:
                raise _in_use("The service", policies, clients)
            tx.services.delete(service.service_id)
            self.auditor.change(
                tx, context, Action.SERVICE_DELETED, caller, service, before=service_record(service)
            )


def taken_name(store: Store, own_names: Mapping[str, OwnNames]) -> tuple[str, str] | None:
    """The first setting that makes a service's identifier one of the provider's names, and that identifier; or `None`.

    Such a service would accept the provider's own tokens. The identifier was free when the service was created.
    Raises `DatabaseUnavailable`.
    """
    with store.read() as tx:
        identifiers = tx.services.identifiers()
    pairs = ((setting, identifier) for setting in own_names for identifier in identifiers)
    return next(((name, it) for name, it in pairs if own_names[name].problem(it)), None)


def _beginning(tx: Transaction, identifier: str, now: datetime) -> datetime:
    """The new service's creation time: now, or the next second if one with its identifier was deleted in this second.

    A token's `iat` has whole seconds, and the tokens of the deleted service must be older than the new service.
    """
    second = now.replace(microsecond=0)
    deleted = AuditFilter(action=Action.SERVICE_DELETED, start=second)
    former = tx.audit.page(deleted, limit=_MOST_DELETED)
    if former is None or all(it.details["before"]["identifier"] != identifier for it in former.data):
        return now
    return second + timedelta(seconds=1)


def _existing(tx: Transaction, service_id: UUID, expected_versions: Sequence[int] | None = None) -> Service:
    service = tx.services.get(service_id)
    if service is None:
        raise errors.ServiceNotFound("There is no service with this id.")
    if expected_versions is not None and service.version not in expected_versions:
        raise errors.PreconditionFailed(
            f"The service is now at version {service.version}; read it again before you change it."
        )
    return service


def _check_dropped(tx: Transaction, before: Service, after: Service) -> None:
    dropped = before.scope_names - after.scope_names
    if not dropped:
        return
    granting = tx.policies.granting(before.identifier)
    policies = [
        policy for policy in granting if not dropped.isdisjoint(policy.granted_at(before.identifier) or ())
    ]
    if policies:
        raise _in_use(f"A scope to be removed ({', '.join(sorted(dropped))})", policies, 0)


def _in_use(what: str, policies: Sequence[TrustPolicy], clients: int) -> errors.ServiceInUse:
    remedies = []
    if policies:
        remedies.append("remove it from the `grants` of the policies in details.policyIds")
    if clients:
        remedies.append("revoke the clients of the service (`sentryagent-idp clients list`)")
    details = {
        "policies": len(policies),
        "policyIds": [str(policy.id) for policy in policies[:_MOST_NAMED]],
        "clients": clients,
    }
    counts = (_counted(len(policies), "policy", "policies"), _counted(clients, "client", "clients"))
    users = " and ".join(filter(None, counts))
    return errors.ServiceInUse(f"{what} is in use by {users}; {', and '.join(remedies)}.", details)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}" if count else ""
