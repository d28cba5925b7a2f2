"""The work of a refusal reveals nothing about stored data (B21). The tests count the work and do not time it."""

from collections import Counter
from uuid import uuid4

import pytest

from kit.provider import AGENTS, NOBODY, good
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.tokens import client_secret
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.clients import ClientAdmin

REFUSALS = [
    # fields of the body, claims
    ({}, {"ref": "refs/heads/dev"}),
    ({}, {"environment": "dev", "event_name": "workflow_run"}),
    # distinct ids, because a repository's second refusal for the same cause is counted instead of written at once
    ({}, {"repository": "acme/unheard-of", "repository_id": "901"}),
    ({}, {"repository": "evil/api", "repository_id": "902"}),
]


@pytest.fixture
def asked(statements):
    """A function that returns the SQL statements of a call, with their counts."""

    def asked(call):
        statements.clear()
        call()
        return Counter(text for text, _ in statements)

    return asked


def test_a_refusal_asks_the_same_with_and_without_policies(target, asked):
    """A refusal runs the same statements for a repository with no, some or many policies that do not match."""
    for number in range(30):
        target.policy(branch=f"release-{number}")

    def refuse(body, claims):
        assert target.exchange(target.github_token(**claims), **body).status_code == 403

    seen = [asked(lambda refusal=refusal: refuse(*refusal)) for refusal in REFUSALS]
    assert seen[0]
    assert seen == [seen[0]] * len(REFUSALS)


def test_a_refusal_asks_the_same_for_agents_known_and_unknown(target, asked):
    """A refusal runs the same statements for an unknown agent and for an agent as which the run may not act."""

    def refuse(agent):
        assert target.exchange(agentId=agent).status_code == 403

    known = target.agent()
    assert asked(lambda: refuse(known)) == asked(lambda: refuse(NOBODY))


UNKNOWN = "sk_live_" + "1" * 64


@pytest.mark.parametrize(
    "client",
    [
        "unknown agent",
        "unknown admin",
        "no id",
        "busy agent",
        "bare agent",
        "suspended agent",
        "admin client",
    ],
)
def test_a_wrong_secret_costs_one_hash(client, target, hashed, clients):
    """Every wrong secret, even a nearly right or revoked one, takes one Argon2 hash, whatever is stored."""
    ids, secrets = clients
    near = [secret[:-1] + ("0" if secret[-1] != "0" else "1") for secret in secrets.values()]
    for wrong in ("sk_live_x", UNKNOWN, secrets["revoked"], *near):
        hashed.clear()

        answer = target.grant((ids[client], wrong))

        assert (answer.status_code, answer.json["error"]) == (401, "invalid_client")
        assert len(hashed) == 1, wrong


@pytest.fixture
def hashed(monkeypatch):
    """The calls that verify or create a hash."""
    seen = []
    for name in ("matches", "hash_secret"):
        call = getattr(client_secret, name)
        monkeypatch.setattr(client_secret, name, lambda *it, call=call: seen.append(it) or call(*it))
    return seen


@pytest.fixture
def clients(target):
    """Client ids by situation, and some secrets of the agent that has five valid and three revoked ones."""
    agents = {name: target.agent(f"{name}@acme.example") for name in ("busy", "bare", "suspended")}
    admin = ClientAdmin(target.store, Auditor(target.clock, uuid4), target.clock, uuid4)
    client, _ = admin.create("admin-cli", "ops", ("agents:read",), RequestContext("test", None))
    made = []
    for _ in range(8):
        made.append(good(target.post(f"{AGENTS}/{agents['busy']}/credentials"), 201))
        if len(made) <= 3:
            path = f"/api/v1/agents/{agents['busy']}/credentials/{made[-1]['credentialId']}"
            assert target.delete(path).status_code == 204
    target.client(agents["suspended"])
    good(target.patch(f"{AGENTS}/{agents['suspended']}", json={"status": "suspended"}))
    ids = {
        "unknown agent": NOBODY,
        "unknown admin": f"admin-{NOBODY}",
        "no id": "x",
        **{f"{name} agent": agent for name, agent in agents.items()},
        "admin client": client.client_id,
    }
    secrets = dict(zip(("revoked", "first", "last"), (made[0], made[3], made[7]), strict=True))
    return ids, {name: credential["clientSecret"] for name, credential in secrets.items()}


def test_a_guess_asks_the_same_of_agents_known_and_unknown(target, asked, clients):
    """A guess runs the same statements for an unknown agent and for agents with any number of credentials."""
    ids, secrets = clients

    def guess(client, secret):
        assert target.grant((ids[client], secret)).status_code == 401

    for secret in (UNKNOWN, secrets["first"][:-1] + "x", secrets["revoked"]):
        seen = [
            asked(lambda client=client, secret=secret: guess(client, secret))
            for client in ("unknown agent", "busy agent", "bare agent", "suspended agent")
        ]
        assert seen[0]
        assert seen == [seen[0]] * 4
