"""Trust policies, on both engines."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from kit.records import keep
from kit.threads import at_once, writing
from sentryagent_idp.domain.agent import AgentStatus
from sentryagent_idp.domain.conditions import Conditions
from sentryagent_idp.domain.trust_policy import PolicyFilter
from sentryagent_idp.errors import TrustPolicyAlreadyExists, ValidationFailed

ISSUER = "https://token.actions.githubusercontent.com"
MICROSECOND = timedelta(microseconds=1)
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
def add(database, make_policy):
    """Store a policy with these fields and return it."""

    def add(**members):
        policy = make_policy(**members)
        keep(database, policy)
        return policy

    return add


def test_every_member_comes_back_as_it_was_stored(database, make_policy, make_agent, now):
    """A policy with every field set is read back equal, times to the microsecond."""
    agent = make_agent()
    source = make_policy(trust_registered=True)
    policy = make_policy(
        agent_id=agent.agent_id,
        conditions=Conditions(
            branch="release/*",
            tag="v*",
            environment="Production",
            workflow="deploy.yml",
            called_workflow="octo/shared/.github/workflows/x.yml@refs/heads/main",
            actor_ids=("1", "22"),
            runner_environment="github-hosted",
            visibility="private",
            ref_protected=True,
            properties={"team": ("core", "web"), "größe": ("1",)},
            events=("push", "pull_request"),
        ),
        repository_id="123",
        repository_owner_id="456",
        scopes=("agents:read", "tokens:read"),
        max_ttl=900,
        enabled=False,
        expires_at=now + timedelta(days=1),
        description="Grüße; DROP TABLE oidc_trust_policies; --",
        version=3,
        last_used_at=now + MICROSECOND,
        derived_from=source.id,
    )
    keep(database, agent, source, policy)
    with database.read() as tx:
        assert tx.policies.get(policy.id) == policy
        assert tx.policies.get(source.id) == source
        assert tx.policies.get(uuid4()) is None


def test_an_empty_list_is_not_an_absent_one(database, add):
    """An empty list of events and an absent condition stay different."""
    none, empty = add(), add(conditions=Conditions(events=()))
    with database.read() as tx:
        assert tx.policies.get(none.id).conditions.events is None
        assert tx.policies.get(empty.id).conditions.events == ()


def test_a_repository_finds_its_own_policies_oldest_first(database, add, now):
    """Policies are selected by issuer and name, without case, and ordered by age; disabled ones are included."""
    newer = add(created_at=now + MICROSECOND, conditions=Conditions(branch="b"), enabled=False)
    older = add(repository="OCTO/REPO")
    add(repository="octo/repo2")
    add(repository="octo/rep%")
    add(issuer="https://ghes.example/_services/token")
    with database.read() as tx:
        assert tx.policies.for_repository(ISSUER, "octo/repo") == [older, newer]
        assert tx.policies.for_repository(ISSUER, "octo/rep_") == []


WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "abcd"),
        ({"issuer": ISSUER}, "abc"),
        ({"issuer": "https://ghes.example.com"}, "d"),
        ({"owner": "OCTO"}, "abd"),
        ({"owner": "octo-org"}, "c"),
        ({"owner": "oct_"}, ""),
        ({"owner": "octo/api"}, ""),
        ({"repository_id": "74"}, "ab"),
        ({"repository_id": "7"}, ""),
        ({"bootstrap": True}, "acd"),
        ({"bootstrap": False}, "b"),
        ({"enabled": True}, "abd"),
        ({"enabled": False}, "c"),
        ({"expired": True}, "ab"),
        ({"expired": False}, "cd"),
        ({"derived_from": UUID(int=1)}, "b"),
        ({"derived_from": UUID(int=2)}, ""),
        ({"unused_since": NOON}, "abc"),
        ({"unused_since": NOON - WEEK}, "b"),
        ({"unused_since": NOON - 9 * WEEK}, ""),
        ({"expires_before": NOON}, "a"),
        ({"expires_before": NOON + 2 * WEEK}, "abc"),
        ({"search": "PI"}, "ac"),
        ({"search": "octo-"}, "c"),
        ({"search": "release bot"}, "b"),
        ({"search": "100%"}, "b"),
        ({"search": "100_"}, ""),
        ({"search": "\u00dcber"}, "c"),
        ({"owner": "octo", "bootstrap": True, "search": "api"}, "a"),
    ],
)
def test_each_filter(database, add, make_agent, wanted, found):
    """Filters narrow the list of policies; the age of an unused policy counts from its creation."""
    agent = make_agent()
    keep(database, agent)
    add(
        id=UUID(int=1),
        repository="Octo/Api",
        repository_id="74",
        created_at=NOON - 8 * WEEK,
        last_used_at=NOON - timedelta(days=1),
        expires_at=NOON - WEEK,
    )
    add(
        id=UUID(int=2),
        repository="octo/web",
        repository_id="74",
        agent_id=agent.agent_id,
        derived_from=UUID(int=1),
        description="The Release Bot, 100%",
        created_at=NOON - 8 * WEEK,
        expires_at=NOON,
    )
    add(
        id=UUID(int=3),
        repository="octo-org/api",
        enabled=False,
        description="\u00dcBER",
        created_at=NOON - timedelta(days=1),
        expires_at=NOON + WEEK,
    )
    add(id=UUID(int=4), repository="octo/x", issuer="https://ghes.example.com", last_used_at=NOON)
    with database.read() as tx:
        page = tx.policies.page(PolicyFilter(**wanted, now=NOON), page=1, limit=20)

    assert "".join(sorted("abcd"[policy.id.int - 1] for policy in page.data)) == found
    assert page.total == len(found)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (PolicyFilter(), 4),
        (PolicyFilter(provider="github"), 4),
        (PolicyFilter(provider="gitlab"), 0),
        (PolicyFilter(repository="OCTO/repo"), 2),
        (PolicyFilter(repository="octo/%"), 0),
        (PolicyFilter(repository="octo/rep_"), 0),
        (PolicyFilter(repository="octo/x' OR '1'='1"), 0),
        (PolicyFilter(repository="octo/\u212aeys"), 0),
        (PolicyFilter(repository="octo/keys"), 1),
        (PolicyFilter(agent_id=UUID(int=7)), 1),
        (PolicyFilter(agent_id=UUID(int=7), repository="octo/other"), 0),
    ],
)
def test_a_filter_is_taken_literally(database, add, make_agent, wanted, found):
    """Filters compare whole values, repositories without ASCII case; wildcards and quotes are literal."""
    keep(database, make_agent(agent_id=UUID(int=7)))
    add()
    add(agent_id=UUID(int=7))
    add(repository="octo/other")
    add(repository="octo/Keys")
    with database.read() as tx:
        assert tx.policies.page(wanted, page=1, limit=100).total == found


def test_pages_follow_age_and_then_the_id(database, add, now):
    """Every policy is on exactly one page, in the order of `created_at`, then `id`."""
    ids = [UUID(int=number) for number in (9, 3, 5)]
    same_age = [add(id=it, repository=f"o/r{it.int}") for it in ids]
    last = add(id=UUID(int=1), created_at=now + MICROSECOND)
    expected = [*sorted(same_age, key=lambda it: it.id), last]
    with database.read() as tx:
        pages = [tx.policies.page(PolicyFilter(), page=number, limit=3) for number in (1, 2, 3, 10**30)]
    assert [page.total for page in pages] == [4, 4, 4, 4]
    assert [policy for page in pages for policy in page.data] == expected


def test_the_same_conditions_are_refused_once_more(database, add, make_policy):
    """A duplicate is refused with the id and version of the existing policy, and the transaction stays usable."""
    policy = add(version=7)
    other = make_policy(repository="octo/other")
    taken = {"policyId": str(policy.id), "version": 7}
    with database.write() as tx:
        with pytest.raises(TrustPolicyAlreadyExists) as refusal:
            tx.policies.add(make_policy(repository="OCTO/repo", enabled=False, description="twin"))
        assert refusal.value.details == taken
        tx.policies.add(other)
        with pytest.raises(TrustPolicyAlreadyExists) as refusal:
            tx.policies.replace(replace(other, repository=policy.repository))
        assert refusal.value.details == taken
    with database.read() as tx:
        assert tx.policies.get(other.id) == other
        assert tx.policies.page(PolicyFilter(), page=1, limit=20).total == 2


def test_of_twins_that_are_added_at_once_one_is_stored(database, other_database, make_policy):
    """Of eight concurrent additions of one policy on two replicas one succeeds; the others are refused as duplicates."""

    def add(tx):
        tx.policies.add(make_policy())

    outcomes = at_once(*[writing(replica, add) for replica in (database, other_database) * 4])
    assert [type(it) for it in outcomes if it is not None] == [TrustPolicyAlreadyExists] * 7


def test_replacing_changes_every_member(database, add, now):
    """The new content replaces the whole policy, including fields that are now absent."""
    policy = add(conditions=Conditions(branch="main"), max_ttl=60, description="old")
    changed = replace(
        policy,
        repository="New/Name",
        conditions=Conditions(tag="v1"),
        max_ttl=None,
        description=None,
        version=2,
    )
    with database.write() as tx:
        tx.policies.replace(changed)
    with database.read() as tx:
        assert tx.policies.get(policy.id) == changed
        assert tx.policies.for_repository(ISSUER, "new/name") == [changed]


def test_derived_policies_go_with_their_source(database, add, make_agent, now):
    """Deleting a bootstrap policy deletes the policies derived from it, and nothing else."""
    agent = make_agent()
    keep(database, agent)
    source = add(trust_registered=True)
    derived = {"derived_from": source.id, "agent_id": agent.agent_id}
    second = add(**derived, conditions=Conditions(branch="b"), created_at=now + MICROSECOND)
    first = add(**derived, conditions=Conditions(branch="a"))
    stranger = add(repository="octo/other")
    with database.write() as tx:
        assert tx.policies.derived_from(source.id) == [first, second]
        tx.policies.delete(source.id)
    with database.read() as tx:
        assert tx.policies.page(PolicyFilter(), page=1, limit=20).data == [stranger]


def test_pinning_fills_in_what_is_missing(database, add, now):
    """Each missing id is filled in and the version raised; an existing id is kept."""
    bare = add()
    half = add(conditions=Conditions(branch="b"), repository_id="old")
    pinned = add(conditions=Conditions(branch="c"), repository_id="x", repository_owner_id="y")
    others = [add(repository="octo/other"), add(issuer="https://ghes.example/_services/token")]
    later = now + timedelta(hours=1)
    pin = {
        "issuer": ISSUER,
        "repository_key": "octo/repo",
        "repository_id": "1",
        "owner_id": "2",
        "now": later,
    }
    with database.write() as tx:
        assert set(tx.policies.pin(**pin)) == {bare.id, half.id}
        assert tx.policies.pin(**pin) == []
        assert tx.policies.get(bare.id) == replace(
            bare, repository_id="1", repository_owner_id="2", version=2, updated_at=later
        )
        assert tx.policies.get(half.id) == replace(half, repository_owner_id="2", version=2, updated_at=later)
        assert [tx.policies.get(it.id) for it in (pinned, *others)] == [pinned, *others]


@pytest.mark.parametrize(("seconds", "noted"), [(0, 0), (59.999999, 0), (60, 60), (3600, 3600)])
def test_use_is_noted_once_a_minute(database, add, now, seconds, noted):
    """A second use within a minute is not written; version and `updated_at` never change."""
    policy = add()
    with database.write() as tx:
        tx.policies.mark_used([policy.id], now)
        tx.policies.mark_used([policy.id], now + timedelta(seconds=seconds))
        assert tx.policies.get(policy.id) == replace(policy, last_used_at=now + timedelta(seconds=noted))


def test_changes_at_once_are_not_lost(database, other_database, add):
    """`get` in a write transaction locks the row, so none of eight read-and-replace changes is lost."""
    policy = add()

    def raise_version(tx):
        held = tx.policies.get(policy.id)
        tx.policies.replace(replace(held, version=held.version + 1))

    assert at_once(*[writing(it, raise_version) for it in (database, other_database) * 4]) == [None] * 8
    with database.read() as tx:
        assert tx.policies.get(policy.id).version == 9


def test_a_long_list_of_actors_fits(database, add):
    """Conditions longer than PostgreSQL's limit for index entries are stored, and a duplicate is refused."""
    conditions = Conditions(actor_ids=tuple(str(number**5) for number in range(10**6, 10**6 + 2000)))
    add(conditions=conditions)
    with pytest.raises(TrustPolicyAlreadyExists):
        add(conditions=conditions)


@pytest.mark.parametrize(
    "members",
    [
        {"provider": "gitlab"},
        {"repository": ""},
        {"repository": "octo/*"},
        {"repository": "octo"},
        {"conditions": Conditions(branch="")},
        {"conditions": Conditions(tag="")},
        {"max_ttl": 0},
        {"agent_id": UUID(int=7), "trust_registered": True},
        {"agent_id": UUID(int=8)},
        {"derived_from": UUID(int=8)},
    ],
)
def test_the_schema_is_a_second_line(database, make_agent, make_policy, members):
    """The tables also refuse a policy that the API would reject."""
    from sqlalchemy.exc import IntegrityError

    keep(database, make_agent(agent_id=UUID(int=7)))
    with pytest.raises(IntegrityError), database.write() as tx:
        tx.policies.add(make_policy(**members))


@pytest.mark.postgres
def test_nul_is_the_requests_fault(migrated_postgres_url, make_policy):
    """PostgreSQL's text cannot hold NUL: that is a 400 for the request, not a database failure."""
    from sentryagent_idp.store.database import Database

    with Database(migrated_postgres_url) as database:
        with pytest.raises(ValidationFailed, match="NUL"), database.read() as tx:
            tx.policies.page(PolicyFilter(repository="octo/\0"), page=1, limit=20)
        with pytest.raises(ValidationFailed, match="digits"), database.write() as tx:
            tx.policies.add(make_policy(max_ttl=2**40))


def _agent_with_policy(database, make_agent, make_policy):
    agent = make_agent()
    policy = make_policy(agent_id=agent.agent_id)
    keep(database, agent, policy)
    return agent, policy


FINGERPRINT_CHANGES = {
    "added": lambda tx, _agent, policy: tx.policies.add(
        replace(policy, id=uuid4(), conditions=Conditions(branch="x"))
    ),
    "changed": lambda tx, _agent, policy: tx.policies.replace(replace(policy, enabled=False, version=2)),
    "pinned": lambda tx, _agent, _policy: tx.policies.pin(
        issuer=ISSUER, repository_key="octo/repo", repository_id="1", owner_id="2", now=NOON
    ),
    "removed": lambda tx, _agent, policy: tx.policies.delete(policy.id),
    "suspended": lambda tx, agent, _policy: tx.agents.replace(replace(agent, status=AgentStatus.SUSPENDED)),
}


@pytest.mark.parametrize("change", FINGERPRINT_CHANGES.values(), ids=FINGERPRINT_CHANGES)
def test_every_change_of_what_decides_changes_the_fingerprint(
    database, other_database, make_agent, make_policy, change
):
    """The fingerprint covers each policy of a repository and the status of each agent, whichever replica changes it."""
    agent, policy = _agent_with_policy(database, make_agent, make_policy)
    with database.read() as tx:
        before = tx.policies.fingerprints(["octo/repo"])
        again = tx.policies.fingerprints(["octo/repo", "octo/other"])
    with other_database.write() as tx:
        change(tx, agent, policy)
    with database.read() as tx:
        after = tx.policies.fingerprints(["octo/repo"])

    assert before == again
    assert before.keys() == {(ISSUER, "octo/repo")}
    assert after != before


def test_what_decides_nothing_leaves_the_fingerprint(database, make_agent, make_policy, now):
    """Uses of a policy, other repositories and other issuers leave the fingerprint unchanged."""
    _, policy = _agent_with_policy(database, make_agent, make_policy)
    with database.read() as tx:
        before = tx.policies.fingerprints(["octo/repo"])
    with database.write() as tx:
        tx.policies.mark_used([policy.id], now)
        tx.policies.add(make_policy(repository="octo/other"))
        tx.policies.add(make_policy(issuer="https://other.example"))
    with database.read() as tx:
        after = tx.policies.fingerprints(["octo/repo"])

    assert after[ISSUER, "octo/repo"] == before[ISSUER, "octo/repo"]
    assert after.keys() == {(ISSUER, "octo/repo"), ("https://other.example", "octo/repo")}


def test_names_of_a_repository(database, make_policy):
    """The names in policies pinned to this id and issuer: each once, sorted, at most three."""
    rows = [("octo/b", "1"), ("octo/b", "1"), ("octo/a", "1"), ("octo/z", "2"), ("octo/y", None)]
    with database.write() as tx:
        for number, (repository, identifier) in enumerate(rows):
            conditions = Conditions(branch=f"b{number}")
            tx.policies.add(
                make_policy(repository=repository, repository_id=identifier, conditions=conditions)
            )
        tx.policies.add(make_policy(repository="octo/ghes", repository_id="1", issuer="https://ghes.example"))
        issuer = make_policy().issuer
        assert tx.policies.names_of(issuer, "1") == ["octo/a", "octo/b"]
        assert tx.policies.names_of(issuer, "3") == []
        for name in ("octo/c", "octo/d"):
            tx.policies.add(make_policy(repository=name, repository_id="1"))
        assert tx.policies.names_of(issuer, "1") == ["octo/a", "octo/b", "octo/c"]
