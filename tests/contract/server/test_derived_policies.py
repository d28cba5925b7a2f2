"""Policies derived by `trustRegistered`: they follow their origin and never block a change of it."""

import pytest

from kit.policies import delete, get, listed, put
from kit.refusals import assert_invalid, assert_refused
from mock_idp.job import Job


def _registered(provider, **policy):
    """A bootstrap policy with trustRegistered, an agent registered under it, and the policy derived for it."""
    bootstrap = provider.policy(trustRegistered=True, **policy)
    agent = provider.agent(headers=provider.bootstrap_headers())["agentId"]
    (derived,) = listed(provider, f"agentId={agent}")
    return get(provider, bootstrap["id"]).json, agent, derived


def test_registration_derives_a_policy(provider):
    """A registration under trustRegistered derives a policy: same conditions, ids, scopes, maxTtl, expiresAt."""
    bootstrap, agent, derived = _registered(
        provider,
        branch="main",
        events=["push"],
        scopes=["agents:read", "tokens:read"],
        maxTtl=60,
        expiresAt="2027-01-01T00:00:00Z",
    )

    own = {"id", "agentId", "derivedFrom", "trustRegistered", "version", "lastUsedAt"}
    assert {name for name in derived if derived[name] != bootstrap[name]} <= own
    assert derived["agentId"] == agent
    assert derived["derivedFrom"] == bootstrap["id"]
    assert derived["trustRegistered"] is False
    assert derived["repositoryId"] == Job().repository_id
    answer = provider.exchange(agentId=agent)
    assert (answer.json["scope"], answer.json["expires_in"]) == ("agents:read tokens:read", 60)


def test_derivation_is_audited_with_the_registration(provider):
    """The agent and the policy are two records of the same request."""
    bootstrap, agent, derived = _registered(provider)

    created, policy = provider.audit(action="agent.created")[0], provider.audit(policyId=derived["id"])[0]

    assert policy["action"] == "policy.created"
    assert policy["details"]["derivedFrom"] == bootstrap["id"]
    assert created["requestId"] == policy["requestId"]
    assert created["agentId"] == policy["agentId"] == agent


def test_no_policy_is_derived_on_conflict_or_without_trust(provider):
    """A 409, an admin's registration and a policy without trustRegistered derive nothing."""
    bootstrap, _, _ = _registered(provider)
    headers = provider.bootstrap_headers()
    assert_refused(
        provider.http.post("/api/v1/agents", json={"email": "bot@octo-org.example"}, headers=headers),
        409,
        "AGENT_ALREADY_EXISTS",
    )
    provider.agent("admins@octo-org.example")
    assert len(listed(provider)) == 2
    put(provider, bootstrap, trustRegistered=False)
    provider.agent("untrusted@octo-org.example", headers=headers)

    assert [it["id"] for it in listed(provider)] == [bootstrap["id"]]


@pytest.mark.parametrize(
    "change", [{"enabled": False}, {"repository": "octo-org/other"}, {"expiresAt": "2026-11-24T12:00:00Z"}]
)
def test_trust_is_the_policys_at_the_time_of_registration(provider, change):
    """An old bootstrap token derives nothing once its policy is disabled, expired or for another repository."""
    bootstrap = provider.policy(trustRegistered=True)
    headers = provider.bootstrap_headers()
    put(provider, bootstrap, **{"trustRegistered": True, **change})

    agent = provider.agent(headers=headers)["agentId"]

    assert listed(provider, f"agentId={agent}") == []


def test_derived_policies_change_with_their_origin(provider):
    """A PUT of the bootstrap policy updates its derived policies in the same transaction."""
    bootstrap, agent, derived = _registered(provider, branch="main")

    put(
        provider,
        bootstrap,
        trustRegistered=True,
        branch="dev",
        maxTtl=30,
        scopes=["tokens:read"],
        description="d",
    )

    changed = get(provider, derived["id"]).json
    assert (changed["branch"], changed["maxTtl"], changed["scopes"]) == ("dev", 30, ["tokens:read"])
    assert (changed["agentId"], changed["derivedFrom"], changed["trustRegistered"]) == (
        agent,
        bootstrap["id"],
        False,
    )
    assert changed["createdAt"] == derived["createdAt"]
    assert changed["version"] == derived["version"] + 1
    assert provider.exchange(agentId=agent).json["code"] == "BRANCH_NOT_PERMITTED"
    put(provider, bootstrap, trustRegistered=True, enabled=False)
    assert provider.exchange(agentId=agent).status_code == 403


@pytest.mark.parametrize("end", ["delete", "distrust", "agent"])
def test_derived_policies_end_with_their_origin(provider, end):
    """DELETE, or a PUT without trustRegistered or with an agentId, removes each derived policy and records it."""
    bootstrap, agent, derived = _registered(provider)
    if end == "delete":
        delete(provider, bootstrap)
    else:
        other = provider.agent("other@octo-org.example")["agentId"]
        put(provider, bootstrap, **({"agentId": other} if end == "agent" else {}))

    assert get(provider, derived["id"]).status_code == 404
    assert provider.exchange(agentId=agent).status_code == 403
    (record,) = provider.audit(action="policy.deleted", agentId=agent)
    assert (record["policyId"], record["details"]["derivedFrom"]) == (derived["id"], bootstrap["id"])


def test_a_derived_policy_can_be_deleted_alone(provider):
    """Without its derived policy an agent gets no token; the bootstrap policy stays."""
    bootstrap, agent, derived = _registered(provider)

    delete(provider, derived)

    assert provider.exchange(agentId=agent).status_code == 403
    assert get(provider, bootstrap["id"]).status_code == 200


# --- changing a derived policy


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"enabled": False, "branch": "only-this", "maxTtl": 60},
        {"branch": "main", "repository": "octo-org/other"},
        {"agentId": None},
        {"agentId": None, "trustRegistered": True},
    ],
)
def test_a_derived_policy_is_changed_through_its_origin(provider, body):
    """A PUT of a derived policy is refused: the origin's next PUT would silently undo the restriction."""
    bootstrap, agent, derived = _registered(provider, branch="main")

    answer = put(provider, derived, **{"agentId": agent, **body})
    returned = put(provider, derived, **derived)

    assert_refused(answer, 409, "TRUST_POLICY_DERIVED", {"derivedFrom": bootstrap["id"]})
    assert_refused(returned, 409, "TRUST_POLICY_DERIVED", {"derivedFrom": bootstrap["id"]})
    assert get(provider, derived["id"]).json == derived


def test_a_version_that_is_gone_is_told_first(provider):
    """An outdated If-Match gets a 412 before the 409; reading the policy again shows its origin."""
    _, agent, derived = _registered(provider)

    assert_refused(put(provider, derived, if_match='"99"', agentId=agent), 412, "PRECONDITION_FAILED", {})


def test_a_detached_policy_stays_as_it_was_closed(provider):
    """`derivedFrom: null` detaches a policy: later changes of its origin no longer reach it."""
    bootstrap, agent, derived = _registered(provider, branch="main")

    answer = put(provider, derived, agentId=agent, enabled=False, maxTtl=60, derivedFrom=None)
    put(provider, bootstrap, trustRegistered=True, branch="main", description="corrected")

    assert answer.status_code == 200, answer.text
    detached = {**derived, "branch": None, "enabled": False, "maxTtl": 60, "derivedFrom": None, "version": 2}
    assert get(provider, derived["id"]).json == detached
    assert provider.exchange(agentId=agent).status_code == 403
    (record,) = provider.audit(action="policy.updated", policyId=derived["id"])
    assert record["details"]["changed"]["derivedFrom"] == {"before": bootstrap["id"], "after": None}
    put(provider, bootstrap)
    delete(provider, bootstrap)
    assert get(provider, derived["id"]).json == detached


def test_detaching_obeys_the_rules_of_any_policy(provider):
    """A PUT that detaches is checked like any other PUT: agent, bootstrap and scope rules."""
    bootstrap, agent, derived = _registered(provider, branch="main")
    poor = provider.admin_headers("policies:write")
    other = provider.agent("other@octo-org.example")["agentId"]

    def detach(headers=provider.admin, **body):
        return put(provider, derived, headers, **{"branch": "main", "derivedFrom": None, **body})

    assert_refused(detach(poor), 403, "FORBIDDEN", {"requiredScope": "agents:write"})
    assert_refused(
        detach(poor, agentId=agent, scopes=["audit:read"]), 403, "FORBIDDEN", {"requiredScope": "audit:read"}
    )
    assert_invalid(detach(agentId=agent, trustRegistered=True), "trustRegistered")
    twin = {"policyId": bootstrap["id"], "version": bootstrap["version"]}
    assert_refused(detach(), 409, "TRUST_POLICY_ALREADY_EXISTS", twin)
    assert get(provider, derived["id"]).json == derived
    assert detach(poor, agentId=other).json["agentId"] == other
    assert detach(branch="dev", trustRegistered=True).json["trustRegistered"] is True
    assert provider.exchange(agentId=agent).status_code == 403


def test_an_equal_policy_by_hand_stays_and_the_derived_one_goes(provider):
    """Tightening the origin never fails because of an agent's own policy, so one PUT ends an incident."""
    bootstrap, agent, derived = _registered(provider)
    own = provider.policy(agentId=agent, branch="main", maxTtl=30)

    answer = put(provider, bootstrap, trustRegistered=True, branch="main")

    assert answer.status_code == 200, answer.text
    assert [it["id"] for it in listed(provider, f"agentId={agent}")] == [own["id"]]
    assert get(provider, own["id"]).json == own
    (record,) = provider.audit(action="policy.deleted")
    assert (record["policyId"], record["agentId"]) == (derived["id"], agent)
    assert record["details"]["derivedFrom"] == bootstrap["id"]
    assert record["details"]["equalTo"] == own["id"]


# --- late registrations


@pytest.mark.parametrize("end", ["deleted", "other-repository-id", "no-repository-id"])
def test_an_agent_registered_late_gets_no_policy(provider, end):
    """A bootstrap token outlives its policy and pins: it can register an agent, but no policy is derived."""
    bootstrap = provider.policy(trustRegistered=True)
    headers = provider.bootstrap_headers()
    if end == "deleted":
        delete(provider, bootstrap)
    else:
        pins = {"other-repository-id": "22", "no-repository-id": None}
        put(provider, bootstrap, trustRegistered=True, repositoryId=pins[end], repositoryOwnerId=pins[end])

    agent = provider.agent(headers=headers)["agentId"]

    assert listed(provider, f"agentId={agent}") == []
    assert provider.exchange(agentId=agent).status_code == 403
