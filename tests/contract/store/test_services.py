"""Services and the policies that grant them, on both engines, including concurrent writes of two replicas."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.exc import IntegrityError

from kit.records import keep
from kit.threads import PATIENCE_SECONDS, at_once, writing
from sentryagent_idp import errors
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.domain.client import Client
from sentryagent_idp.domain.conditions import Conditions
from sentryagent_idp.domain.scopes import ALL_SCOPES
from sentryagent_idp.domain.service import OwnNames, ServiceFilter, ServiceGrant, ServiceScope
from sentryagent_idp.domain.trust_policy import PolicyFilter
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.store.services import SERVICES
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.clients import ClientAdmin
from sentryagent_idp.use_cases.services import ServiceAdmin, ServiceDraft
from sentryagent_idp.use_cases.trust_policies import PolicyAdmin, PolicyDraft

ISSUER = "https://token.actions.githubusercontent.com"
A = "https://a.example.com"
ADMIN = Caller("admin-cli", ALL_SCOPES, "jti", 0, 1)
HERE = RequestContext(str(uuid4()), None)
HOW = ("share", "change")
TO_A = (ServiceGrant(A, ("deploy", "read")),)


@pytest.fixture
def admins(now):
    """Make the use cases for services, policies and clients on a database."""

    def make(database):
        clock, auditor = (lambda: now), Auditor(lambda: now, uuid4)
        return (
            ServiceAdmin(database, auditor, clock, uuid4, OwnNames("https://idp.example.com", ())),
            PolicyAdmin(database, auditor, clock, uuid4, (ISSUER,)),
            ClientAdmin(database, auditor, clock, uuid4),
        )

    return make


def draft(agent_id, grants=TO_A):
    return PolicyDraft(
        provider="github",
        repository="octo/repo",
        conditions=Conditions(),
        agent_id=agent_id,
        repository_id=None,
        repository_owner_id=None,
        scopes=("agents:read",),
        max_ttl=None,
        trust_registered=False,
        enabled=True,
        expires_at=None,
        description=None,
        grants=grants,
    )


def test_a_service_comes_back_as_it_was_stored(database, make_service, now):
    """A service is read back equal, and lifetimes are found by identifier."""
    service = make_service(identifier=A, description="Grüße", max_ttl=300, version=4)
    plain = make_service(identifier=A + "/", scopes=(ServiceScope("x"),))
    keep(database, service, plain)
    with database.read() as tx:
        assert tx.services.get(service.service_id) == service
        assert tx.services.get(uuid4()) is None
        assert tx.services.named([A + "/", A, "urn:ex:none"]) == [service, plain]
        assert tx.services.named([]) == []
        assert tx.services.max_ttls([A, A + "/", "urn:ex:none"]) == {A: 300, A + "/": None}
        assert tx.services.page(ServiceFilter(), page=1, limit=20).total == 2
        assert tx.services.page(ServiceFilter(A), page=1, limit=20).data == [service]
        assert tx.services.page(ServiceFilter(A.upper()), page=1, limit=20).total == 0


def test_an_identifier_is_there_once(database, make_service):
    """A second service with the same identifier is refused with the id of the first; the transaction stays usable."""
    first = make_service(identifier=A)
    keep(database, first)
    with database.write() as tx:
        with pytest.raises(errors.ServiceAlreadyExists) as refused:
            tx.services.add(make_service(identifier=A))
        assert refused.value.details == {"serviceId": str(first.service_id)}
        tx.services.add(make_service(identifier="https://A.example.com"))


def test_a_service_made_again_in_the_same_second_begins_with_the_next(database, now):
    """A re-created service begins with the next second, because `iat` is in seconds: no token of the old one counts."""
    rests, auditor = [], Auditor(lambda: now, uuid4)
    names = OwnNames("https://idp.example.com", ())
    services = ServiceAdmin(database, auditor, lambda: now, uuid4, names, rests.append)
    written = ServiceDraft(None, None, (ServiceScope("read"),), None)
    first, _ = (services.create(ADMIN, identifier, written, HERE) for identifier in (A, A + "/"))
    issued_at = int(now.timestamp())
    assert first.accepts(A, issued_at)
    services.delete(ADMIN, first.service_id, HERE, expected_versions=None)
    assert services.create(ADMIN, "https://b.example.com", written, HERE).accepts(
        "https://b.example.com", issued_at
    )
    assert rests == []

    second = services.create(ADMIN, A, written, HERE)

    assert not second.accepts(A, issued_at)
    assert second.accepts(A, issued_at + 1)
    assert rests == [1 - now.microsecond / 1_000_000]
    assert services.get(second.service_id) == second


def test_who_grants_a_service(database, make_service, make_policy, make_agent):
    """Policies are found by the exact service that they grant, and no longer once the grant is removed."""
    agent = make_agent()
    keep(database, agent, make_service(identifier=A), make_service(identifier="https://A.example.com"))
    policy = make_policy(agent_id=agent.agent_id, grants=TO_A)
    keep(database, policy, make_policy())
    with database.read() as tx:
        assert tx.policies.get(policy.id) == policy
        assert tx.policies.granting(A) == [policy]
        assert tx.policies.granting("https://A.example.com") == []
        assert tx.policies.page(PolicyFilter(service=A), page=1, limit=20).data == [policy]
        assert tx.policies.page(PolicyFilter(service=A + "/"), page=1, limit=20).total == 0
        assert tx.policies.page(PolicyFilter(service=A, provider="x"), page=1, limit=20).total == 0
    with database.write() as tx:
        tx.policies.replace(replace(policy, grants=()))
        assert tx.policies.granting(A) == []
        tx.policies.replace(policy)
        tx.policies.delete(policy.id)
        assert tx.policies.granting(A) == []


def test_the_schema_is_a_second_line(database, make_service, make_policy):
    """The tables refuse a policy that grants an unknown service, and the deletion of a granted service."""
    service = make_service(identifier=A)
    with pytest.raises(IntegrityError):
        keep(database, make_policy(grants=TO_A))
    keep(database, service, make_policy(grants=TO_A))
    with pytest.raises(IntegrityError):
        writing(database, lambda tx: tx.services.delete(service.service_id))()


def test_a_snapshot_notices_its_services(database, make_service, make_policy, make_agent):
    """Changing a granted service changes the repository's fingerprint; changing another service does not."""
    agent, service, other = make_agent(), make_service(identifier=A), make_service(identifier="urn:ex:other")
    policy = make_policy(agent_id=agent.agent_id, grants=TO_A)
    keep(database, agent, service, other, policy, make_policy(repository="octo/plain"))

    def fingerprints():
        with database.read() as tx:
            found = tx.policies.fingerprints(["octo/repo", "octo/plain"])
            return found[ISSUER, "octo/repo"], found[ISSUER, "octo/plain"]

    before = fingerprints()
    writing(database, lambda tx: tx.services.replace(replace(other, version=2)))()
    assert fingerprints() == before
    writing(database, lambda tx: tx.services.replace(replace(service, version=2, max_ttl=5)))()
    assert fingerprints()[0] != before[0]
    assert fingerprints()[1] == before[1]


@pytest.mark.parametrize("order", ["policy first", "service first", "at once"])
@pytest.mark.parametrize("change", ["delete", "drop a scope"])
def test_no_service_goes_while_a_policy_that_grants_it_is_written(
    database, other_database, make_service, make_agent, admins, change, order
):
    """The first writer wins: either both the policy and the service exist, or neither the grant nor the service."""
    service, agent = make_service(identifier=A), make_agent()
    keep(database, service, agent)
    services, _, _ = admins(database)
    _, policies, _ = admins(other_database)
    kept = ServiceDraft(None, None, (ServiceScope("read"),), None)

    def remove():
        if change == "delete":
            services.delete(ADMIN, service.service_id, HERE, expected_versions=None)
        else:
            services.replace(ADMIN, service.service_id, kept, HERE, expected_versions=None)
        return "removed"

    def grant():
        return policies.create(ADMIN, draft(agent.agent_id), HERE).grants

    if order == "policy first":
        granted, removed = at_once(grant)[0], at_once(remove)[0]
    elif order == "service first":
        removed, granted = at_once(remove)[0], at_once(grant)[0]
    else:
        removed, granted = at_once(remove, grant)

    outcome = type(removed), type(granted)
    allowed = {
        "policy first": [(errors.ServiceInUse, tuple)],
        "service first": [(str, errors.ValidationFailed)],
    }
    assert outcome in allowed.get(order, [it for both in allowed.values() for it in both])
    with database.read() as tx:
        left = tx.services.named([A])
        assert bool(tx.policies.granting(A)) == (granted == TO_A)
        assert bool(left and "deploy" in left[0].scope_names) == (granted == TO_A)


@pytest.mark.parametrize("other", ["policy", "client"])
def test_a_service_that_is_being_deleted_gets_neither_grant_nor_client(
    database, other_database, make_service, make_agent, admins, other
):
    """A writer that arrives during an uncommitted deletion waits for it, and then finds no service."""
    service, agent = make_service(identifier=A), make_agent()
    keep(database, service, agent)
    _, policies, clients = admins(other_database)

    def write():
        if other == "policy":
            return policies.create(ADMIN, draft(agent.agent_id), HERE)
        return clients.create_for_service("admin-cli", "x", A, HERE)

    def delete():
        with database.write() as tx:
            assert tx.services.get(service.service_id) == service
            late = pool.submit(write)
            assert not late.done()
            tx.services.delete(service.service_id)
        return late

    with ThreadPoolExecutor(1) as pool:
        refused = delete().exception(PATIENCE_SECONDS)

    assert isinstance(refused, errors.ValidationFailed if other == "policy" else errors.AdminRefused)
    with database.read() as tx:
        assert tx.policies.page(PolicyFilter(), page=1, limit=1).total == 0
        assert tx.clients.bound_to(A, service.created_at) == 0


@pytest.mark.postgres
def test_what_is_granted_stays_until_the_end(migrated_postgres_url, make_service):
    """Writers of grants share the lock on a service and exclude writers that change it; SQLite has one writer anyway."""
    service = make_service(identifier=A)
    engine = create_engine(migrated_postgres_url)
    by = {
        how: select(SERVICES.c.identifier).with_for_update(skip_locked=True, read=how == "share")
        for how in HOW
    }

    def free():
        with engine.connect() as another:
            return {how: another.scalars(by[how]).all() == [A] for how in HOW}

    with Database(migrated_postgres_url) as database:
        keep(database, service)
        with database.write() as tx:
            assert tx.services.named([A]) == [service]
            assert free() == {"share": True, "change": False}
        with database.write() as tx:
            assert tx.services.get(service.service_id) == service
            assert free() == {"share": False, "change": False}
        with database.read() as tx:
            assert (tx.services.named([A]), tx.services.get(service.service_id)) == ([service], service)
            assert free() == {"share": True, "change": True}
    engine.dispose()


def test_live_clients_are_bound(database, make_service, admins):
    """A live client prevents the deletion of its service; a revoked one does not."""
    service = make_service(identifier=A)
    keep(database, service)
    services, _, clients = admins(database)
    client, _ = clients.create_for_service("admin-cli", "x", A, HERE)
    clients.create("admin-cli", "admin", ("agents:read",), HERE)

    with pytest.raises(errors.ServiceInUse) as refused:
        services.delete(ADMIN, service.service_id, HERE, expected_versions=None)
    assert refused.value.details == {"policies": 0, "policyIds": [], "clients": 1}
    clients.rotate("admin-cli", client.client_id, HERE)
    clients.revoke("admin-cli", client.client_id, HERE)
    services.delete(ADMIN, service.service_id, HERE, expected_versions=None)


@pytest.mark.parametrize(
    ("client_id", "service"), [("service-1", None), ("admin-1", A), ("agent-1", None), ("agent-1", A)]
)
def test_a_client_is_an_admins_or_a_services(database, client_id, service, now):
    """The schema does not let a service's client pass for an admin's, or the reverse."""
    client = Client(client_id, "x", (), "hash", now, service=service)
    with pytest.raises(IntegrityError):
        writing(database, lambda tx: tx.clients.add(client))()


def test_going_back_removes_what_only_services_need(url, make_service, make_agent, make_policy, now):
    """After a downgrade, admin clients and other policies remain; service clients and scopeless policies do not."""
    from alembic import command

    agent = make_agent()
    mixed = make_policy(agent_id=agent.agent_id, grants=TO_A)
    alone = make_policy(agent_id=agent.agent_id, grants=TO_A, scopes=(), repository="octo/other")
    admin = Client("admin-1", "x", ("agents:read",), "hash", now)
    with Database(url) as database:
        keep(database, make_service(identifier=A), agent, mixed, alone)
        with database.write() as tx:
            tx.clients.add(admin)
            tx.clients.add(Client("service-1", "x", (), "hash", now, service=A))
    engine = create_engine(url)
    with engine.begin() as connection:
        command.downgrade(schema.alembic_config(connection), "026")
    engine.dispose()
    schema.migrate(url)
    with Database(url) as database, database.read() as tx:
        assert tx.clients.all() == [admin]
        assert tx.policies.page(PolicyFilter(), page=1, limit=20).data == [replace(mixed, grants=())]
        assert tx.services.page(ServiceFilter(), page=1, limit=20).total == 0
