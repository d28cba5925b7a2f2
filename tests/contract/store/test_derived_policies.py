"""The effects of `trustRegistered` in the store, on both engines, including databases of earlier versions."""

from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, select, update

from kit.threads import at_once
from sentryagent_idp.domain.audit import Action, AuditFilter, RequestContext
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.domain.conditions import Conditions
from sentryagent_idp.domain.scopes import ALL_SCOPES
from sentryagent_idp.domain.trust_policy import PolicyFilter
from sentryagent_idp.errors import TrustPolicyAlreadyExists, TrustPolicyDerived
from sentryagent_idp.store.database import Database
from sentryagent_idp.store.trust_policies import OIDC_TRUST_POLICIES
from sentryagent_idp.use_cases.agents import Registration
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.trust_policies import PolicyAdmin, PolicyDraft

ISSUER = "https://token.actions.githubusercontent.com"
ADMIN = Caller("admin-cli", ALL_SCOPES, "jti", 0, 1)
HERE = RequestContext("3f2504e0-4f89-41d3-9a0c-0305e82c3301", None)


def draft(**members):
    return PolicyDraft(
        **{
            "provider": "github",
            "repository": "octo/repo",
            "conditions": Conditions(),
            "agent_id": None,
            "repository_id": None,
            "repository_owner_id": None,
            "scopes": ("agents:read",),
            "max_ttl": None,
            "trust_registered": False,
            "enabled": True,
            "expires_at": None,
            "description": None,
        }
        | members
    )


class Provider:
    """Both use cases on one database, at a fixed time."""

    def __init__(self, database, now):
        self.database, self.now = database, now
        auditor = Auditor(lambda: self.now, uuid4)
        self.policies = PolicyAdmin(database, auditor, lambda: self.now, uuid4, (ISSUER,))
        self.agents = Registration(database, auditor, lambda: self.now, uuid4)

    def create(self, **members):
        return self.policies.create(ADMIN, draft(**members), HERE)

    def put(self, policy, **members):
        return self.policies.replace(ADMIN, policy.id, draft(**members), HERE, expected_versions=None)

    def delete(self, policy):
        self.policies.delete(ADMIN, policy.id, HERE, expected_versions=None)

    def register(self, bootstrap, name="bot", **run):
        """Register an agent with a bootstrap token of repository 21 that was issued earlier."""
        run = {"repository": "octo/repo", "repository_id": "21", **run}
        token = {"provider": "github", "policy_id": str(bootstrap.id), **run}
        caller = Caller("repo:octo/repo", ("agents:write",), "jti", 0, 1, token)
        fields = {
            "email": f"{name}@octo.example",
            "description": None,
            "agent_type": "custom",
            "version": "1.0.0",
            "capabilities": ("ci:run",),
            "owner": None,
            "deployment_env": "production",
        }
        return self.agents.register(caller, fields, HERE)

    def of(self, agent):
        return self.policies.page(PolicyFilter(agent_id=agent.agent_id), page=1, limit=100).data

    def audited(self, action, policy):
        with self.database.read() as tx:
            wanted = AuditFilter(action=action, policy_id=policy.id)
            return [it.details for it in tx.audit.page(wanted, page=1, limit=100).data]


@pytest.fixture
def provider(database, now):
    """A provider on this engine."""
    return Provider(database, now)


@pytest.fixture
def trusted(provider):
    """A bootstrap policy with trustRegistered, an agent registered under it, and the policy derived for it."""
    bootstrap = provider.create(trust_registered=True, repository_id="21", repository_owner_id="5")
    agent = provider.register(bootstrap)
    (derived,) = provider.of(agent)
    return SimpleNamespace(bootstrap=bootstrap, agent=agent, derived=derived)


def test_a_derived_policy_has_all_of_its_origin(provider, now):
    """Conditions, ids, scopes, lifetime and expiry are copied from the origin, at registration and after each change."""
    terms = {
        "conditions": Conditions(branch="main", events=("push",), actor_ids=("1", "2")),
        "repository_id": "21",
        "repository_owner_id": "5",
        "scopes": ("agents:read", "tokens:read"),
        "max_ttl": 60,
        "expires_at": now + timedelta(days=1),
    }
    bootstrap = provider.create(trust_registered=True, **terms)
    agent = provider.register(bootstrap)
    (derived,) = provider.of(agent)
    assert {name: getattr(derived, name) for name in terms} == terms
    assert (derived.derived_from, derived.trust_registered, derived.enabled) == (bootstrap.id, False, True)

    changed = terms | {"conditions": Conditions(tag="v*"), "scopes": ("agents:read",), "expires_at": None}
    provider.put(bootstrap, trust_registered=True, enabled=False, **changed)
    (followed,) = provider.of(agent)
    assert {name: getattr(followed, name) for name in changed} == changed
    assert (followed.id, followed.enabled, followed.version) == (derived.id, False, 2)


def test_a_derived_policy_is_not_changed_alone(provider, trusted):
    """A derived policy can only be detached; then it is independent, and its former origin no longer changes it."""
    with pytest.raises(TrustPolicyDerived) as refusal:
        provider.put(trusted.derived, agent_id=trusted.agent.agent_id, enabled=False)
    assert refusal.value.details == {"derivedFrom": str(trusted.bootstrap.id)}
    assert provider.of(trusted.agent) == [trusted.derived]

    detached = provider.put(
        trusted.derived,
        agent_id=trusted.agent.agent_id,
        enabled=False,
        nulls=frozenset({"derivedFrom"}),
    )
    provider.put(trusted.bootstrap, trust_registered=True, description="corrected")
    provider.delete(trusted.bootstrap)
    assert detached.derived_from is None
    assert provider.of(trusted.agent) == [detached]


def test_a_policy_made_by_hand_stays(provider, trusted):
    """If the agent already has an equal policy, a change of the origin deletes the derived one, with an audit record."""
    main = Conditions(branch="main")
    own = provider.create(agent_id=trusted.agent.agent_id, conditions=main)
    other = provider.register(trusted.bootstrap, "other")

    provider.put(trusted.bootstrap, trust_registered=True, conditions=main, enabled=False)

    assert provider.of(trusted.agent) == [own]
    (record,) = provider.audited(Action.POLICY_DELETED, trusted.derived)
    assert (record["derivedFrom"], record["equalTo"]) == (str(trusted.bootstrap.id), str(own.id))
    (followed,) = provider.of(other)
    assert (followed.conditions, followed.enabled) == (main, False)


@pytest.mark.parametrize("end", ["delete", "distrust"])
def test_derived_policies_end_with_their_origin(provider, trusted, end):
    """Derived policies are deleted with their origin or its `trustRegistered`, each with an audit record."""
    other = provider.register(trusted.bootstrap, "other")
    lost = [*provider.of(other), trusted.derived]
    if end == "delete":
        provider.delete(trusted.bootstrap)
    else:
        provider.put(trusted.bootstrap)

    assert provider.of(trusted.agent) == provider.of(other) == []
    records = [provider.audited(Action.POLICY_DELETED, it) for it in lost]
    assert [[it["derivedFrom"] for it in found] for found in records] == [[str(trusted.bootstrap.id)]] * 2


def test_an_origin_can_become_what_was_derived_from_it(provider, trusted):
    """An origin can be changed into a policy for the agent: the derived policy is deleted, so it is not a duplicate."""
    turned = provider.put(trusted.bootstrap, agent_id=trusted.agent.agent_id)

    assert provider.of(trusted.agent) == [turned]
    assert len(provider.audited(Action.POLICY_DELETED, trusted.derived)) == 1


@pytest.mark.parametrize("change", ["disable", "rename", "delete"])
def test_a_bootstrap_policy_that_was_once_derived_holds_nobody_back(provider, trusted, database, change):
    """Earlier versions could turn a derived policy into a bootstrap policy by a PUT: it is independent now."""
    table = OIDC_TRUST_POLICIES
    once_derived = provider.create(conditions=Conditions(branch="old"), repository_id="21")
    with database.write() as tx:
        tx.policies._connection.execute(
            update(table).where(table.c.id == once_derived.id).values(derived_from=trusted.bootstrap.id)
        )
    assert provider.policies.get(once_derived.id) == once_derived

    if change == "disable":
        provider.put(trusted.bootstrap, trust_registered=True, enabled=False)
        assert [it.enabled for it in provider.of(trusted.agent)] == [False]
    elif change == "rename":
        provider.put(trusted.bootstrap, trust_registered=True, conditions=Conditions(branch="main"))
    else:
        provider.delete(trusted.bootstrap)
        assert provider.of(trusted.agent) == []
    assert provider.policies.get(once_derived.id) == once_derived
    changed = provider.put(once_derived, conditions=Conditions(branch="old"), description="mine")
    assert changed.derived_from is None


def test_another_bootstrap_policy_still_counts(provider, trusted):
    """Another bootstrap policy with the same conditions is a duplicate: the refusal names it, and nothing changes."""
    other = provider.create(conditions=Conditions(branch="main"))
    with pytest.raises(TrustPolicyAlreadyExists) as refusal:
        provider.put(trusted.bootstrap, trust_registered=True, conditions=Conditions(branch="main"))
    assert refusal.value.details == {"policyId": str(other.id), "version": 1}
    assert provider.of(trusted.agent) == [trusted.derived]


@pytest.mark.parametrize(
    "change",
    [
        {"repository_id": "22", "repository_owner_id": "6"},
        {"repository_id": "22"},
        {"nulls": frozenset({"repositoryId"})},
        {"repository": "octo/other", "repository_id": "21"},
        {"enabled": False},
        {"expires_at": timedelta(0)},
        {"trust_registered": False},
        "delete",
    ],
    ids=str,
)
def test_who_registers_late_is_not_trusted(provider, trusted, now, change):
    """A bootstrap token outlives its policy: at registration, the policy's current state and ids decide."""
    if change == "delete":
        provider.delete(trusted.bootstrap)
    else:
        end = {"expires_at": now} if "expires_at" in change else {}
        provider.put(trusted.bootstrap, **{"trust_registered": True, **change, **end})

    late = provider.register(trusted.bootstrap, "late")

    assert provider.of(late) == []


def test_a_change_that_leaves_the_ids_leaves_the_trust(provider, trusted):
    """Correcting a policy between exchange and registration keeps the trust if the ids stay the same."""
    provider.put(trusted.bootstrap, trust_registered=True, conditions=Conditions(branch="main"))

    (derived,) = provider.of(provider.register(trusted.bootstrap, "late", repository="Octo/REPO"))

    assert derived.conditions == Conditions(branch="main")


def test_detaching_and_changing_the_origin_at_once(provider, trusted, other_database, now):
    """If two replicas detach a policy and change its origin at the same time, the detached policy stays as written."""
    other = Provider(other_database, now)

    def detach():
        nulls = frozenset({"derivedFrom"})
        other.put(trusted.derived, agent_id=trusted.agent.agent_id, enabled=False, max_ttl=7, nulls=nulls)

    def change():
        provider.put(trusted.bootstrap, trust_registered=True, max_ttl=60)

    assert at_once(detach, change) == [None, None]
    (detached,) = provider.of(trusted.agent)
    assert (detached.derived_from, detached.enabled, detached.max_ttl) == (None, False, 7)


@pytest.mark.postgres
def test_derived_policies_are_locked_until_the_end(migrated_postgres_url, now):
    """Derived policies stay locked until the origin's change commits, so they cannot be detached meanwhile."""
    engine = create_engine(migrated_postgres_url)
    free = select(OIDC_TRUST_POLICIES.c.id).with_for_update(skip_locked=True)
    with Database(migrated_postgres_url) as database:
        provider = Provider(database, now)
        bootstrap = provider.create(trust_registered=True, repository_id="21", repository_owner_id="5")
        provider.register(bootstrap)
        with database.write() as tx:
            assert len(tx.policies.derived_from(bootstrap.id)) == 1
            with engine.connect() as another:
                assert another.execute(free).scalars().all() == [bootstrap.id]
    engine.dispose()
