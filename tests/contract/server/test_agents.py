"""Agents, from registration to decommissioning."""

import pytest

from kit.provider import AGENTS
from kit.refusals import assert_invalid, assert_refused
from kit.tokens import claims_of, token_of
from mock_idp.job import Job

EMAIL = "bot@octo-org.example"


def post(provider, headers=None, /, **body):
    return provider.http.post(AGENTS, json={"email": EMAIL, **body}, headers=headers or provider.admin)


def patch(provider, agent, headers=None, /, **body):
    return provider.http.patch(f"{AGENTS}/{agent['agentId']}", json=body, headers=headers or provider.admin)


def get(provider, agent):
    return provider.get(f"{AGENTS}/{agent['agentId']}")


def subject(headers):
    token = token_of(headers)
    return claims_of(token)["sub"]


def test_registered_agent_has_every_field(provider):
    """An agent registered with only an e-mail address gets the defaults, an id and a Location."""
    answer = post(provider)

    assert answer.status_code == 201
    record = dict(answer.json)
    assert answer.headers["Location"] == f"{AGENTS}/{record.pop('agentId')}"
    assert record == {
        "email": EMAIL,
        "description": None,
        "agentType": "custom",
        "version": "1.0.0",
        "capabilities": ["ci:run"],
        "owner": subject(provider.admin),
        "deploymentEnv": "production",
        "status": "active",
        "registeredBy": None,
        "createdAt": "2026-11-24T12:00:00Z",
        "updatedAt": "2026-11-24T12:00:00Z",
    }
    assert get(provider, answer.json).json == answer.json


def test_registered_agent_keeps_what_was_written(provider):
    """Every field that a caller may set is returned as written."""
    body = {
        "email": "Bot+CI@Octo-Org.example",
        "description": "Reads issues\u00a0: üñí 🤖\n\tand sorts them",
        "agentType": "classifier",
        "version": "2.3.1-beta.1+build.5",
        "capabilities": ["issues:read", "labels:*"],
        "owner": "Équipe A",
        "deploymentEnv": "staging",
    }

    answer = post(provider, **body)

    assert answer.status_code == 201, answer.text
    assert {name: answer.json[name] for name in body} == body


def test_repository_registers_in_its_own_name(provider):
    """A bootstrap token records which repository registered the agent; the owner defaults to the repository's."""
    provider.policy()

    agent = post(provider, provider.bootstrap_headers()).json

    assert agent["owner"] == "octo-org"
    assert agent["registeredBy"] == {
        "provider": "github",
        "repository": "octo-org/hello-agent",
        "repositoryId": Job().repository_id,
    }


RULES = [
    (
        "email",
        [
            "",
            "x",
            "a@b",
            "@x.example",
            "a b@x.example",
            "a@x.example\n",
            "a@-x.example",
            "é@x.example",
            1,
            [],
            "a@x..example",
            f"{'a' * 250}@x.example",
            "a@x.example, b@x.example",
            "<a@x.example>",
        ],
    ),
    ("description", ["x" * 1025, "a\x00b", "a\x1bb", "a\x85b", 1, []]),
    ("agentType", ["", "Custom", "other", 1]),
    ("version", ["", "1", "1.0", "v1.0.0", "01.0.0", "1.0.0\n", "1.0.0-" + "x" * 64, 1.0, 1]),
    (
        "capabilities",
        [[], ["run"], ["a:b:c"], [""], [1], "ci:run", ["a:b\n"], ["a :b"], ["a:b"] * 101, ["x" * 127 + ":y"]],
    ),
    ("owner", ["", "x" * 129, "a\x00b", "a\nb", 1]),
    ("deploymentEnv", ["", "prod", "Production", 1]),
]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        *RULES,
        ("agentId", ["3f2504e0-4f89-41d3-9a0c-0305e82c3301"]),
        ("status", ["active"]),
        ("registeredBy", [{}]),
        ("createdAt", ["2027-01-01T00:00:00Z"]),
        ("agent_type", ["custom"]),
    ],
)
def test_field_rules_of_a_registration(still_provider, field, values):
    """An invalid field is refused by name, and nothing is stored."""
    for value in values:
        assert_invalid(post(still_provider, **{field: value}), field)
    assert still_provider.get(AGENTS).json["total"] == 0


@pytest.mark.parametrize(
    ("field", "values"),
    [*RULES, ("status", ["decommissioned", "Active", "", 1]), ("agentId", ["x"]), ("updatedAt", ["x"])],
)
def test_field_rules_of_a_change(provider, field, values):
    """A PATCH follows the same rules; a refused PATCH changes nothing."""
    agent = provider.agent()

    for value in values:
        assert_invalid(patch(provider, agent, **{field: value}), field)
    assert get(provider, agent).json == agent


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("email", "new@octo-org.example"),
        ("description", ""),
        ("agentType", "router"),
        ("version", "1.0.1"),
        ("capabilities", ["a:b"]),
        ("owner", "x" * 128),
        ("deploymentEnv", "development"),
        ("status", "suspended"),
    ],
)
def test_change_of_one_member(provider, member, value):
    """A PATCH changes only the fields it names and `updatedAt`."""
    agent = provider.agent(description="before")
    provider.clock.advance(5)

    answer = patch(provider, agent, **{member: value})

    assert answer.status_code == 200, answer.text
    assert answer.json == {**agent, member: value, "updatedAt": "2026-11-24T12:00:05Z"}
    assert get(provider, agent).json == answer.json


@pytest.mark.parametrize(
    "body", [{}, {"description": None, "email": None}, {"email": EMAIL, "status": "active"}]
)
def test_change_of_nothing(provider, body):
    """A PATCH that changes nothing succeeds; it leaves `updatedAt` alone and writes no audit record."""
    agent = provider.agent()
    provider.clock.advance(5)

    assert patch(provider, agent, **body).json == agent
    assert provider.audit(action="agent.updated") == []


@pytest.mark.parametrize("email", [EMAIL, "BOT@octo-org.EXAMPLE"])
def test_email_is_unique_without_case(provider, email):
    """Addresses that differ only in ASCII case are the same; an admin is told which agent has the address."""
    agent = provider.agent()

    answer = post(provider, email=email)

    assert_refused(answer, 409, "AGENT_ALREADY_EXISTS", {"agentId": agent["agentId"], "status": "active"})


def test_email_stays_unique_in_a_change(provider):
    """A PATCH cannot take another agent's address, but it can change the case of the agent's own."""
    first = provider.agent()
    second = provider.agent("other@octo-org.example")

    answer = patch(provider, second, email=EMAIL.upper())

    assert_refused(answer, 409, "AGENT_ALREADY_EXISTS", {"agentId": first["agentId"], "status": "active"})
    assert patch(provider, first, email=EMAIL.upper()).json["email"] == EMAIL.upper()


def test_conflict_names_only_agents_that_the_caller_may_read(provider):
    """A repository sees the id and status of its own agent; of another's, only that the address is taken."""
    provider.policy()
    headers = provider.bootstrap_headers()
    own = post(provider, headers, email="own@octo-org.example").json
    patch(provider, own, status="suspended")
    provider.agent("strange@octo-org.example")

    mine = post(provider, headers, email="own@octo-org.example")
    strange = post(provider, headers, email="strange@octo-org.example")

    assert_refused(mine, 409, "AGENT_ALREADY_EXISTS", {"agentId": own["agentId"], "status": "suspended"})
    assert_refused(strange, 409, "AGENT_ALREADY_EXISTS", {})


def test_end_of_an_agent(provider):
    """Decommissioning is final: the agent cannot be changed or reactivated, and its address stays taken."""
    agent = provider.agent()

    answer = provider.delete(f"{AGENTS}/{agent['agentId']}")

    assert (answer.status_code, answer.data) == (204, b"")
    assert get(provider, agent).json["status"] == "decommissioned"
    again = provider.delete(f"{AGENTS}/{agent['agentId']}")
    assert_refused(again, 409, "AGENT_DECOMMISSIONED", {})
    for body in ({"status": "active"}, {"status": "suspended"}, {"description": "x"}, {}):
        assert_refused(patch(provider, agent, **body), 409, "AGENT_DECOMMISSIONED", {})
    assert_refused(
        post(provider), 409, "AGENT_ALREADY_EXISTS", {"agentId": agent["agentId"], "status": "decommissioned"}
    )


def test_list_filters(provider):
    """A list can be filtered by owner, agentType, status and email (case-insensitive)."""
    router = provider.agent("router@octo-org.example", agentType="router", owner="team a")["agentId"]
    ended = provider.agent("ended@octo-org.example", owner="team a")["agentId"]
    paused = provider.agent("paused@octo-org.example")["agentId"]
    provider.delete(f"{AGENTS}/{ended}")
    provider.patch(f"{AGENTS}/{paused}", json={"status": "suspended"})

    def ids(query):
        answer = provider.get(f"{AGENTS}?{query}")
        return {it["agentId"] for it in answer.json["data"]}

    assert ids("") == {router, ended, paused}
    assert ids("agentType=router") == {router}
    assert ids("owner=team+a") == {router, ended}
    assert ids("owner=Team+a") == set()
    assert ids("status=active") == {router}
    assert ids("status=suspended") == {paused}
    assert ids("status=decommissioned&owner=team+a") == {ended}
    assert ids("email=PAUSED@octo-org.example") == {paused}
    for query, field in (("status=gone", "status"), ("agentType=x", "agentType"), ("status=", "status")):
        assert_invalid(provider.get(f"{AGENTS}?{query}"), field)


def test_life_is_audited(provider):
    """Each step of an agent's life is recorded with the actor and the changes."""
    agent = provider.agent()
    patch(provider, agent, description="x", version="2.0.0")
    for status in ("suspended", "active"):
        patch(provider, agent, status=status)
    provider.delete(f"{AGENTS}/{agent['agentId']}")

    records = provider.audit(agentId=agent["agentId"])[::-1]

    assert [it["action"] for it in records] == [
        "agent.created",
        "agent.updated",
        "agent.suspended",
        "agent.reactivated",
        "agent.decommissioned",
    ]
    assert {it["actor"] for it in records} == {subject(provider.admin)}
    assert records[0]["details"]["after"] == agent
    assert records[1]["details"]["changed"] == {
        "description": {"before": None, "after": "x"},
        "version": {"before": "1.0.0", "after": "2.0.0"},
    }


@pytest.mark.parametrize("member", ["status", "email"])
def test_refusal_of_a_change_names_the_member(provider, member):
    """A caller who may not change a field is told which field."""
    provider.policy()
    headers = provider.bootstrap_headers()
    agent = post(provider, headers).json
    value = {"status": "suspended", "email": "x@octo-org.example"}[member]

    assert_refused(patch(provider, agent, headers, **{member: value}), 403, "FORBIDDEN", {"field": member})
