"""What a refusal costs tells nothing about what is stored (B21). Work is counted, not timed: time is for the benchmark."""

from collections import Counter

import pytest

from server.tokens import client_secret

NOBODY = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"

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


@pytest.mark.parametrize(
    "client", ["unknown agent", "unknown admin", "no id", "known agent", "agent without a secret"]
)
def test_a_wrong_secret_costs_one_hash(client, target, monkeypatch):
    """Whoever guesses secrets waits for one Argon2 hash, whether the client exists or not."""
    agent, bare = target.agent(), target.agent("bare@acme.example")
    target.http.post(f"/api/v1/agents/{agent}/credentials", json={}, headers=target.admin)
    hashed = []
    matches = client_secret.matches
    monkeypatch.setattr(client_secret, "matches", lambda *it: hashed.append(it) or matches(*it))
    client_id = {
        "unknown agent": NOBODY,
        "unknown admin": f"admin-{NOBODY}",
        "no id": "x",
        "known agent": agent,
        "agent without a secret": bare,
    }[client]

    answer = target.http.post(
        "/api/v1/token",
        data={"grant_type": "client_credentials", "client_id": client_id, "client_secret": "sk_live_x"},
    )

    assert (answer.status_code, answer.json["error"]) == (401, "invalid_client")
    assert len(hashed) == 1
