"""`POST /oidc/trust-policies/simulate`: the exchange's decision without an exchange."""

import json

import pytest

from sentryagent_idp.use_cases import simulation

PATH = "/api/v1/oidc/trust-policies/simulate"
CLAIMS = {
    "repository": "octo-org/hello-agent",
    "repository_id": "1",
    "repository_owner_id": "2",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "event_name": "push",
}


def simulate(provider, **body):
    return provider.post(PATH, json=body)


def test_simulate_claims_that_a_policy_covers(provider):
    """Claims that meet a policy are allowed; the response names the policy and its scopes."""
    policy = provider.policy(branch="main")

    answer = simulate(provider, claims=CLAIMS)

    assert answer.status_code == 200
    assert answer.json == {
        "allowed": True,
        "code": None,
        "reason": None,
        "policyId": policy["id"],
        "scope": "agents:write",
        "trace": [{"policyId": policy["id"], "matched": ["branch"], "failed": []}],
    }


@pytest.mark.parametrize(
    ("changed", "code", "failed"),
    [
        ({"ref": "refs/heads/dev"}, "BRANCH_NOT_PERMITTED", ["branch"]),
        ({"event_name": "pull_request_target"}, "TRUST_POLICY_VIOLATION", ["events"]),
        ({"repository": "octo-org/other"}, "TRUST_POLICY_VIOLATION", []),
        ({"repository_id": "3"}, "IDENTITY_CHANGED", []),
    ],
)
def test_simulate_claims_that_no_policy_covers(provider, changed, code, failed):
    """Each refusal has the exchange's code, and the trace says which condition failed."""
    provider.policy(branch="main", repositoryId="1")

    answer = simulate(provider, claims={**CLAIMS, **changed}).json

    assert answer["allowed"] is False
    assert answer["code"] == code
    assert answer["policyId"] is None
    assert [it["condition"] for entry in answer["trace"] for it in entry["failed"]] == failed


def test_simulate_ignores_claims_that_nothing_is_decided_on(provider):
    """A token's other claims may be sent, whatever their type, and are ignored."""
    provider.policy(properties={"team": ["core"]})
    others = {"iat": 1, "sub": "x", "run_number": "7", "new": {"a": [1]}, "properties": {"team": "core"}}

    run = {**CLAIMS, **others, "repo_property_tier": None}

    assert simulate(provider, claims={**run, "repo_property_team": "core"}).json["allowed"] is True
    assert simulate(provider, claims=run).json["allowed"] is False


def test_simulate_token_leaves_it_good(provider):
    """A simulated token can still be exchanged, and a simulation pins nothing."""
    policy = provider.policy()
    token = provider.github_token()

    assert simulate(provider, token=token).json["allowed"] is True
    assert simulate(provider, token=token).json["allowed"] is True
    stored = provider.get(f"/api/v1/oidc/trust-policies/{policy['id']}").json
    assert stored["repositoryId"] is None
    assert stored["lastUsedAt"] is None
    assert provider.exchange(token).status_code == 200
    assert simulate(provider, token=token).json["reason"] == "replayed"


def test_simulate_token_that_is_not_acceptable(provider):
    """A token that the exchange would refuse gets the exchange's code and reason."""
    answer = simulate(provider, token=provider.github_token(fault="expired")).json

    assert (answer["allowed"], answer["code"], answer["reason"]) == (False, "INVALID_OIDC_TOKEN", "expired")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "claims"),
        ({"claims": CLAIMS, "token": "x"}, "claims"),
        ({"claims": {**CLAIMS, "ref": 1}}, "claims.ref"),
        ({"claims": {"repository": "octo-org/x"}}, "claims.repository_id"),
        ({"claims": {**CLAIMS, "repo_property_team": 1}}, "claims.repo_property_team"),
        ({"claims": CLAIMS, "agentId": "x"}, "agentId"),
    ],
)
def test_simulate_malformed(provider, body, field):
    """A malformed body is refused by field."""
    answer = simulate(provider, **body)

    assert answer.status_code == 400
    assert answer.json["details"]["field"] == field


def test_simulate_needs_policies_read(provider):
    """A caller who may not read policies cannot probe them."""
    answer = provider.http.post(PATH, json={"claims": CLAIMS}, headers=provider.admin_headers("agents:read"))

    assert answer.status_code == 403
    assert answer.json["details"] == {"requiredScope": "policies:read"}


def test_simulate_runs(any_provider):
    """Each run is decided as if it were alone: repositories, agents and services are not mixed up."""
    provider = any_provider
    provider.service("urn:ex:deploy", "deploy")
    agent_id, _ = provider.trusted_agent(
        branch="main", grants=[{"service": "urn:ex:deploy", "scopes": ["deploy"]}]
    )
    provider.policy(branch="main", repositoryId="1")
    provider.policy(repository="octo-org/other", repositoryId="2")
    runs = [
        {"claims": CLAIMS},
        {"claims": CLAIMS, "agentId": agent_id},
        {"claims": CLAIMS, "agentId": agent_id, "resource": "urn:ex:deploy"},
        {"claims": CLAIMS, "agentId": agent_id, "resource": "urn:ex:other"},
        {"claims": {**CLAIMS, "ref": "refs/heads/dev"}, "agentId": None},
        {"claims": {**CLAIMS, "repository": "Octo-Org/Hello-Agent"}},
        {"claims": {**CLAIMS, "repository_id": "3"}},
        {"claims": {**CLAIMS, "repository": "octo-org/renamed"}},
        {"claims": {**CLAIMS, "repository": "octo-org/renamed", "repository_id": "2"}},
        {"claims": {**CLAIMS, "repository": "octo-org/renamed", "repository_id": "9"}},
    ]

    answer = simulate(provider, runs=runs)

    assert answer.status_code == 200
    assert answer.json == {"data": [simulate(provider, **run).json for run in runs]}
    codes = [it["code"] for it in answer.json["data"]]
    assert (
        codes
        == [None, None, None, "SERVICE_NOT_PERMITTED", "BRANCH_NOT_PERMITTED", None, "IDENTITY_CHANGED"]
        + ["TRUST_POLICY_VIOLATION"] * 3
    )
    assert len({it["reason"] for it in answer.json["data"][-3:]}) == 3


RUN = {"claims": CLAIMS}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"runs": []}, "runs"),
        ({"runs": [RUN] * 101}, "runs"),
        ({"runs": [RUN, {}]}, "runs.1.claims"),
        ({"runs": [RUN, RUN, {"claims": {**CLAIMS, "ref": 1}}]}, "runs.2.claims.ref"),
        ({"runs": [RUN, {**RUN, "agentId": "x"}]}, "runs.1.agentId"),
        ({"runs": [RUN, {**RUN, "resource": "urn:ex:a"}]}, "runs.1.agentId"),
        ({"runs": [RUN, {**RUN, "token": "x"}]}, "runs.1.token"),
        ({"runs": [RUN], "claims": CLAIMS}, "claims"),
        ({"runs": [RUN], "token": "x"}, "claims"),
        ({"runs": [RUN], "agentId": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"}, "agentId"),
        ({"runs": [RUN], "resource": "urn:ex:a"}, "resource"),
    ],
)
def test_simulate_malformed_runs(provider, body, field):
    """The field in the error has the index of its run."""
    answer = simulate(provider, **body)

    assert answer.status_code == 400
    assert answer.json["details"]["field"] == field


def test_runs_cost_no_more_than_their_repositories(provider, monkeypatch):
    """Each repository and agent is read once; too many comparisons are refused, but never for a single run."""
    for branch in ("a", "b", "c"):
        provider.policy(branch=branch)
    reads = []
    read = simulation.read_snapshot
    monkeypatch.setattr(simulation, "read_snapshot", lambda *it: reads.append(it) or read(*it))
    monkeypatch.setattr(simulation, "_MOST_COMPARED", 299)
    # A repository without a policy is also read only once.
    other = {"claims": {**CLAIMS, "repository": "octo-org/other"}}

    assert len(simulate(provider, runs=[RUN, other] * 50).json["data"]) == 100
    assert len(reads) == 2
    refused = simulate(provider, runs=[RUN] * 100)
    assert (refused.status_code, refused.json["details"]["field"]) == (400, "runs.99")
    monkeypatch.setattr(simulation, "_MOST_COMPARED", 2)
    assert simulate(provider, runs=[RUN]).status_code == 200


def test_body_of_1_mib_is_the_largest(provider):
    """A hundred runs with all their claims fit into 1 MiB; a body one byte larger than that is a 413."""
    run = {"claims": {**CLAIMS, **{f"repo_property_{number}": "x" * 80 for number in range(50)}}}
    assert simulate(provider, runs=[run] * 100).status_code == 200
    body = json.dumps({"claims": {**CLAIMS, "padding": ""}})
    for size, status in ((2**20, 200), (2**20 + 1, 413)):
        padded = body + " " * (size - len(body))
        answer = provider.post(PATH, data=padded, content_type="application/json")
        assert answer.status_code == status
    assert answer.json["message"] == "The body is larger than 1024 KiB; send less."
