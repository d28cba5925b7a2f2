"""`POST /oidc/trust-policies/simulate`: the exchange's decision without an exchange."""

import pytest

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
    """Claims that a policy covers are allowed, by that policy, with its scopes."""
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
    """The claims of a whole token may be sent, whatever type they have and whatever GitHub adds next."""
    provider.policy(properties={"team": ["core"]})
    others = {"iat": 1, "sub": "x", "run_number": "7", "new": {"a": [1]}, "properties": {"team": "core"}}

    run = {**CLAIMS, **others, "repo_property_tier": None}

    assert simulate(provider, claims={**run, "repo_property_team": "core"}).json["allowed"] is True
    assert simulate(provider, claims=run).json["allowed"] is False


def test_simulate_token_leaves_it_good(provider):
    """A simulated token can still be exchanged, and pins nothing before it is."""
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
    """A token that the exchange would refuse as such is named with the exchange's reason."""
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
    """A malformed body names its field."""
    answer = simulate(provider, **body)

    assert answer.status_code == 400
    assert answer.json["details"]["field"] == field


def test_simulate_needs_policies_read(provider):
    """Who may not read policies may not probe them."""
    answer = provider.http.post(PATH, json={"claims": CLAIMS}, headers=provider.admin_headers("agents:read"))

    assert answer.status_code == 403
    assert answer.json["details"] == {"requiredScope": "policies:read"}
