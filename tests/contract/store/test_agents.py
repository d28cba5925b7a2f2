"""Agents and their credentials, on both engines."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from kit.records import keep
from kit.threads import at_once, writing
from sentryagent_idp.domain.agent import AgentFilter, AgentStatus, RegisteredBy
from sentryagent_idp.errors import AgentAlreadyExists

BY_REPOSITORY = RegisteredBy("github", "Octo/Repo", "123")


@pytest.fixture
def add(database, make_agent):
    """Store an agent with these fields and return it."""

    def add(**members):
        agent = make_agent(**members)
        keep(database, agent)
        return agent

    return add


@pytest.mark.parametrize(
    "registered_by", [None, BY_REPOSITORY, replace(BY_REPOSITORY, issuer="https://ghes.example.com")]
)
def test_every_member_comes_back_as_it_was_stored(database, add, now, registered_by):
    """An agent is read back equal, in read and in write transactions."""
    agent = add(
        email="Bot@Example.com",
        description="'; DELETE FROM agents; --",
        capabilities=("ci:run", "docs:read"),
        status=AgentStatus.SUSPENDED,
        registered_by=registered_by,
        updated_at=now + timedelta(microseconds=1),
    )
    with database.read() as tx:
        assert tx.agents.get(agent.agent_id) == agent
        assert tx.agents.status(agent.agent_id) is AgentStatus.SUSPENDED
        assert (tx.agents.get(uuid4()), tx.agents.status(uuid4())) == (None, None)
    with database.write() as tx:
        assert tx.agents.get(agent.agent_id) == agent


@pytest.mark.parametrize(
    ("email", "found"),
    [
        ("kim@example.com", True),
        ("KIM@EXAMPLE.COM", True),
        ("kim@example_com", False),
        ("%", False),
        ("\u212aim@example.com", False),
    ],
)
def test_an_address_is_compared_without_ascii_case(database, add, email, found):
    """Only ASCII letters are compared without case: KELVIN SIGN is not K, and wildcards are literal."""
    agent = add(email="Kim@Example.com", status=AgentStatus.DECOMMISSIONED)
    with database.read() as tx:
        assert tx.agents.by_email(email) == (agent if found else None)
        assert tx.agents.page(AgentFilter(email=email), page=1, limit=20).total == int(found)


def test_an_address_is_taken_once(database, add, make_agent):
    """Adding an agent with a taken address, or changing one to it, is refused; the transaction stays usable."""
    taken, other, third = add(email="a@example.com"), add(), make_agent()
    with database.write() as tx:
        with pytest.raises(AgentAlreadyExists):
            tx.agents.add(make_agent(email="A@EXAMPLE.com"))
        with pytest.raises(AgentAlreadyExists):
            tx.agents.replace(replace(other, email=taken.email))
        tx.agents.add(third)
    with database.read() as tx:
        assert [tx.agents.get(it.agent_id) for it in (taken, other, third)] == [taken, other, third]


def test_of_equal_addresses_that_register_at_once_one_wins(database, other_database, make_agent):
    """Eight concurrent registrations of one address on two replicas create one agent."""

    def register(tx):
        tx.agents.add(make_agent(email="same@example.com"))

    outcomes = at_once(*[writing(replica, register) for replica in (database, other_database) * 4])
    assert [type(it) for it in outcomes if it is not None] == [AgentAlreadyExists] * 7


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (AgentFilter(), {1, 2, 3}),
        (AgentFilter(owner="octo"), {1, 3}),
        (AgentFilter(owner="oct_"), set()),
        (AgentFilter(owner="x' OR 1=1 --"), set()),
        (AgentFilter(agent_type="router"), {2}),
        (AgentFilter(status=AgentStatus.ACTIVE), {1, 2}),
        (AgentFilter(registered_by_repository_id="123"), {1}),
        (AgentFilter(agent_id=UUID(int=2)), {2}),
        (AgentFilter(owner="octo", status=AgentStatus.SUSPENDED), {3}),
        (AgentFilter(agent_id=UUID(int=2), owner="octo"), set()),
    ],
)
def test_a_filter_narrows_and_all_of_them_count(database, add, wanted, found):
    """Filters compare whole values and are ANDed."""
    add(agent_id=UUID(int=1), registered_by=BY_REPOSITORY)
    add(agent_id=UUID(int=2), owner="hub", agent_type="router")
    add(agent_id=UUID(int=3), status=AgentStatus.SUSPENDED)
    with database.read() as tx:
        page = tx.agents.page(wanted, page=1, limit=20)
    assert {agent.agent_id.int for agent in page.data} == found
    assert page.total == len(found)


@pytest.mark.parametrize(
    ("issuer", "found"), [(None, {1, 2, 3}), ("https://a.example", {1, 3}), ("https://b.example", {2, 3})]
)
def test_agents_of_an_issuer(database, add, issuer, found):
    """An agent without a known issuer matches every issuer; one whose issuer was renamed matches the new one."""
    for number, of in ((1, "https://old.example"), (2, "https://b.example"), (3, None)):
        add(agent_id=UUID(int=number), registered_by=replace(BY_REPOSITORY, issuer=of))
    with database.write() as tx:
        tx.agents.move_issuer("https://old.example", "https://a.example")
    wanted = AgentFilter(registered_by_repository_id="123", registered_by_issuer=issuer)
    with database.read() as tx:
        page = tx.agents.page(wanted, page=1, limit=20)
    assert {agent.agent_id.int for agent in page.data} == found


def test_pages_follow_age_and_then_the_id(database, add, now):
    """Every agent is on exactly one page, in the order of `created_at`, then `agent_id`."""
    for number in (9, 3, 5):
        add(agent_id=UUID(int=number))
    add(agent_id=UUID(int=1), created_at=now + timedelta(microseconds=1))
    with database.read() as tx:
        pages = [tx.agents.page(AgentFilter(), page=number, limit=2).data for number in (1, 2, 3)]
    assert [[agent.agent_id.int for agent in page] for page in pages] == [[3, 5], [9, 1], []]


def test_credentials_belong_to_one_agent(database, add, make_credential, now):
    """Credentials, including revoked ones, are listed oldest first, and only under their own agent."""
    agent, stranger = add(), add()
    newer = make_credential(agent.agent_id, created_at=now + timedelta(microseconds=1))
    older = make_credential(agent.agent_id, expires_at=now + timedelta(days=1))
    with database.write() as tx:
        tx.credentials.add(newer)
        tx.credentials.add(older)
        revoked = replace(older, revoked_at=now, secret_hash="new")
        tx.credentials.replace(revoked)
    with database.read() as tx:
        assert tx.credentials.of_agent(agent.agent_id) == [revoked, newer]
        assert tx.credentials.get(agent.agent_id, newer.credential_id) == newer
        assert tx.credentials.get(stranger.agent_id, newer.credential_id) is None
        assert tx.credentials.of_agent(stranger.agent_id) == []
