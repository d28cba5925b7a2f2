"""What a refusal costs tells nothing about what is stored (B21). Work is counted, not timed: time is for the benchmark."""

from collections import Counter
from uuid import uuid4

import pytest

from kit.provider import AGENTS, NOBODY, good
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.tokens import client_secret
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.clients import ClientAdmin

REFUSALS = [
    # what is asked for, as members of the body and claims
    ({}, {"ref": "refs/heads/dev"}),
    ({}, {"environment": "dev", "event_name": "workflow_run"}),
    # ids of their own: a second refusal of one repository for one cause is counted, and not written at once
    ({}, {"repository": "acme/unheard-of", "repository_id": "901"}),
    ({}, {"repository": "evil/api", "repository_id": "902"}),
]


@pytest.fixture
def asked(statements):
    """The texts that a call sends to the database, each with its number."""

    def asked(call):
        statements.clear()
        call()
        return Counter(text for text, _ in statements)

    return asked


def test_a_refusal_asks_the_same_with_and_without_policies(target, asked):
    """Whether a repository has no policy, some, or many that do not match: the same statements are run."""
    for number in range(30):
        target.policy(branch=f"release-{number}")

    def refuse(body, claims):
        assert target.exchange(target.github_token(**claims), **body).status_code == 403

    seen = [asked(lambda refusal=refusal: refuse(*refusal)) for refusal in REFUSALS]
    assert seen[0]
    assert seen == [seen[0]] * len(REFUSALS)


def test_a_refusal_asks_the_same_for_agents_known_and_unknown(target, asked):
    """An agent that does not exist costs what one costs that the run may not be."""

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
    """A guess takes one Argon2 hash, whatever is stored, also one that is near a secret or was good once."""
    ids, secrets = clients
    near = [secret[:-1] + ("0" if secret[-1] != "0" else "1") for secret in secrets.values()]
    for wrong in ("sk_live_x", UNKNOWN, secrets["revoked"], *near):
        hashed.clear()

        answer = target.grant((ids[client], wrong))

        assert (answer.status_code, answer.json["error"]) == (401, "invalid_client")
        assert len(hashed) == 1, wrong


@pytest.fixture
def hashed(monkeypatch):
    """The hashes that are checked or made."""
    seen = []
    for name in ("matches", "fingerprint"):
        call = getattr(client_secret, name)
        monkeypatch.setattr(client_secret, name, lambda *it, call=call: seen.append(it) or call(*it))
    return seen


@pytest.fixture
def clients(target):
    """Clients by what is stored of them, and some secrets of the agent that has five live and many revoked ones."""
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
    """An agent that does not exist costs the statements of one that does, with however many credentials."""
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
