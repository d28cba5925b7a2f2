"""Policy decisions: conditions, the choice between several policies, and pinned ids."""

import pytest

from kit.provider import NOBODY, POLICIES
from kit.refusals import assert_refused
from mock_idp.job import Job

CALLED = "octo-org/automation/.github/workflows/deploy.yml@refs/heads/main"


@pytest.mark.parametrize(
    ("condition", "passing", "failing"),
    [
        ({"branch": "main"}, {}, {"ref": "refs/heads/dev"}),
        ({"branch": "release/*"}, {"ref": "refs/heads/release/1"}, {"ref": "refs/heads/release/1/x"}),
        ({"branch": "release/**"}, {"ref": "refs/heads/release/1/x"}, {"ref": "refs/heads/releases"}),
        ({"branch": "main"}, {}, {"ref": "refs/tags/main", "ref_type": "tag"}),
        ({"branch": "main"}, {}, {"ref": "refs/heads/main", "ref_type": "tag"}),
        ({"branch": "main"}, {}, {"ref": "refs/heads/Main"}),
        ({"branch": "a.b"}, {"ref": "refs/heads/a.b"}, {"ref": "refs/heads/axb"}),
        ({"tag": "v*"}, {"ref": "refs/tags/v1", "ref_type": "tag"}, {"ref": "refs/heads/v1"}),
        (
            {"tag": "v1"},
            {"ref": "refs/tags/v1", "ref_type": "tag"},
            {"ref": "refs/tags/v1/x", "ref_type": "tag"},
        ),
        ({"environment": "Production"}, {"environment": "pRODUCTION"}, {"environment": "staging"}),
        ({"environment": "production"}, {"environment": "production"}, {}),
        ({"environment": "production"}, {"environment": "production"}, {"environment": ""}),
        ({"workflow": "ci.yml"}, {}, {"job": Job(workflow="other.yml")}),
        (
            {"workflow": "ci.yml"},
            {},
            {"workflow_ref": "octo-evil/x/.github/workflows/ci.yml@refs/heads/main"},
        ),
        ({"calledWorkflow": CALLED}, {"job": Job(called_workflow=CALLED)}, {}),
        ({"calledWorkflow": CALLED}, {"job_workflow_ref": CALLED}, {"job_workflow_ref": CALLED + "x"}),
        ({"actorIds": ["1", "2"]}, {"actor_id": "2"}, {"actor_id": "3"}),
        ({"actorIds": ["1"]}, {"actor_id": "1"}, {"actor_id": None}),
        ({"runnerEnvironment": "github-hosted"}, {}, {"runner_environment": "self-hosted"}),
        ({"runnerEnvironment": "self-hosted"}, {"runner_environment": "self-hosted"}, {}),
        (
            {"visibility": "private"},
            {"repository_visibility": "private"},
            {"repository_visibility": "public"},
        ),
        ({"events": ["push"]}, {}, {"event_name": "workflow_dispatch"}),
        ({"events": ["pull_request_target"]}, {"event_name": "pull_request_target"}, {}),
        ({"events": ["pull_request"]}, {"job": Job(event="pull_request")}, {}),
        ({}, {}, {"ref": "refs/pull/1/merge"}),
        ({}, {}, {"event_name": "pull_request_target"}),
        ({}, {}, {"event_name": "pull_request", "ref": "refs/heads/main"}),
        ({}, {}, {"event_name": "workflow_run"}),
        ({}, {}, {"event_name": "issue_comment"}),
        ({}, {}, {"repository": "octo-org/other"}),
        ({}, {"repository": "OCTO-org/Hello-Agent"}, {"repository": "octo-org/hello-agent2"}),
        ({"branch": "main", "environment": "prod"}, {"environment": "prod"}, {"environment": "dev"}),
        ({"enabled": True}, {}, None),
        ({"expiresAt": "2026-11-24T12:00:01Z"}, {}, None),
    ],
)
def test_each_condition_lets_in_and_keeps_out(provider, condition, passing, failing):
    """For each condition, one run that passes and one that fails for that reason only."""
    provider.policy(**condition)

    assert provider.exchange(provider.github_token(**passing)).status_code == 200
    if failing is not None:
        refusal = provider.exchange(provider.github_token(**failing))
        assert refusal.status_code == 403, refusal.text
        assert len(refusal.json["details"]["nearestPolicies"]) <= 1


def test_both_forms_of_sub_and_none_that_is_known_decide_alike(provider):
    """`sub` never decides: GitHub's formats and customised ones get the same result."""
    provider.policy(branch="main")

    for sub in (
        "repo:octo-org/hello-agent:ref:refs/heads/main",
        "repo:octo-org@1/hello-agent@2:x",
        "anything",
    ):
        assert provider.exchange(provider.github_token(sub=sub)).status_code == 200


def test_missing_ref_type_matters_only_where_a_condition_needs_it(provider):
    """`ref_type` may be missing unless the policy has a condition that needs it."""
    policy = provider.policy()
    assert provider.exchange(provider.github_token(ref_type=None)).status_code == 200
    provider.replace_policy(policy, branch="main")

    answer = provider.exchange(provider.github_token(ref_type=None))

    assert_refused(answer, 401, "INVALID_OIDC_TOKEN", {"reason": "missing_claim"})


@pytest.mark.parametrize("change", [{"enabled": False}, {"expiresAt": "2026-11-24T12:00:00Z"}])
def test_a_policy_that_is_off_or_over_lets_nobody_in(provider, change):
    """A disabled or expired policy allows no run, from the next exchange on."""
    policy = provider.policy()
    provider.replace_policy(policy, **change)

    failed = assert_refused(provider.exchange(), 403, "TRUST_POLICY_VIOLATION")["details"]["nearestPolicies"][
        0
    ]["failed"]
    assert [it["condition"] for it in failed] == list(change)


def test_a_policy_expires_while_the_provider_runs(provider):
    """`expiresAt` is exclusive and compared with the provider's clock."""
    provider.policy(expiresAt="2026-11-24T12:01:00Z")

    seen = []
    for _ in range(2):
        seen.append(provider.exchange().status_code)
        provider.clock.advance(60)
    assert seen == [200, 403]


def test_changes_hold_for_the_next_exchange_in_every_process(provider):
    """A policy change applies to the next exchange in every process."""
    policy = provider.policy()
    other = provider.with_settings()
    assert other.exchange().status_code == 200
    pinned = provider.get(f"{POLICIES}/{policy['id']}").json
    provider.replace_policy(pinned, branch="dev")
    assert other.exchange().status_code == 403
    provider.delete(f"{POLICIES}/{policy['id']}")
    assert other.exchange().json["details"]["nearestPolicies"] == []


def test_the_most_specific_policy_decides(provider):
    """Most conditions first, then an exact branch over a wildcard, then the oldest; scopes are not merged."""
    agent = provider.agent()["agentId"]
    ids = {}
    for name, members in (
        ("any", {"scopes": ["agents:read", "tokens:read"]}),
        ("wildcard", {"branch": "m*"}),
        ("exact", {"branch": "main"}),
        ("event", {"events": ["push"]}),
        ("two", {"branch": "m*", "events": ["push"]}),
    ):
        ids[provider.policy(agentId=agent, **members)["id"]] = name
        provider.clock.advance(1)

    decided = []
    for _ in range(5):
        answer = provider.exchange(agentId=agent, dryRun=True).json
        decided.append(ids[answer["policyId"]])
        assert answer["scope"] == ("agents:read tokens:read" if decided[-1] == "any" else "agents:read")
        provider.delete(f"{POLICIES}/{answer['policyId']}")
    assert decided == ["two", "exact", "wildcard", "event", "any"]


def test_a_policy_is_for_exactly_one_agent_or_for_none(provider):
    """A bootstrap policy issues no agent's token; an agent's policy issues only that agent's tokens."""
    agent = provider.agent()["agentId"]
    other = provider.agent("other@octo-org.example")["agentId"]
    policy = provider.policy()
    assert_refused(provider.exchange(agentId=agent), 403, "TRUST_POLICY_VIOLATION")
    provider.delete(f"{POLICIES}/{policy['id']}")
    provider.policy(agentId=agent)

    assert_refused(provider.exchange(), 403, "TRUST_POLICY_VIOLATION")
    assert_refused(provider.exchange(agentId=other), 403, "TRUST_POLICY_VIOLATION")
    assert provider.exchange(agentId=agent.upper()).status_code == 200


def test_first_exchange_pins_the_ids(provider):
    """The first success pins the repository's ids in every policy of its name, and raises their versions."""
    _, unused = provider.trusted_agent()
    policy = provider.policy()
    job = Job()
    assert policy["repositoryId"] is policy["repositoryOwnerId"] is None

    answer = provider.exchange(provider.github_token(job=job))

    for stored in (policy, unused):
        pinned = provider.get(f"{POLICIES}/{stored['id']}")
        assert pinned.json["repositoryId"] == job.repository_id
        assert pinned.json["repositoryOwnerId"] == job.repository_owner_id
        assert pinned.json["version"] == 2
        assert pinned.headers["ETag"] == '"2"'
    records = provider.audit(action="policy.pinned")
    assert {record["policyId"] for record in records} == {policy["id"], unused["id"]}
    assert {record["requestId"] for record in records} == {answer.headers["X-Request-Id"]}


@pytest.mark.parametrize("given", ["repositoryId", "repositoryOwnerId"])
def test_the_id_that_an_admin_left_out_is_pinned(provider, given):
    """A policy with one of the two ids gets the other at its first exchange, so a new owner is detected (A8)."""
    job = Job()
    ids = {"repositoryId": job.repository_id, "repositoryOwnerId": job.repository_owner_id}
    policy = provider.policy(**{given: ids[given]})

    assert provider.exchange().status_code == 200

    stored = provider.get(f"{POLICIES}/{policy['id']}").json
    assert {name: stored[name] for name in ids} == ids
    for claim in ("repository_id", "repository_owner_id"):
        assert_refused(provider.exchange(provider.github_token(**{claim: "9"})), 403, "IDENTITY_CHANGED", {})


@pytest.mark.parametrize("pin", [{"repositoryId": "1"}, {"repositoryOwnerId": "1"}])
@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({}, {}),
        ({"ref": "refs/heads/dev"}, {}),
        ({"event_name": "workflow_run"}, {}),
        ({}, {"agentId": NOBODY}),
        ({}, {"scope": "audit:read"}),
    ],
)
def test_other_ids_outrank_every_other_refusal(provider, pin, changes, body):
    """A name with other ids is IDENTITY_CHANGED before any other refusal, and without details."""
    provider.policy(branch="main", **pin)

    answer = provider.exchange(provider.github_token(**changes), **body)

    assert_refused(answer, 403, "IDENTITY_CHANGED", {})


def test_one_pinned_policy_guards_all_of_its_name(provider):
    """A second policy without ids does not bypass the pins of the first one."""
    policy = provider.policy(branch="main", repositoryId="1", repositoryOwnerId="2")
    other = provider.policy(branch="**")
    assert (other["repositoryId"], other["repositoryOwnerId"]) == ("1", "2")

    assert_refused(provider.exchange(), 403, "IDENTITY_CHANGED", {})
    provider.replace_policy(policy, enabled=False)
    provider.replace_policy(other, repositoryId=None, repositoryOwnerId=None)
    assert provider.exchange().status_code == 200


def test_a_resurrected_repository_is_refused_until_an_admin_agrees(provider):
    """A repository re-created under the same name is refused until an admin clears the pins, which is audited."""
    policy = provider.policy()
    assert provider.exchange().status_code == 200
    stranger = {"repository_id": "999", "repository_owner_id": "998"}
    assert_refused(provider.exchange(provider.github_token(**stranger)), 403, "IDENTITY_CHANGED", {})

    provider.replace_policy(policy, repositoryId=None, repositoryOwnerId=None)

    assert provider.exchange(provider.github_token(**stranger)).status_code == 200
    (record,) = provider.audit(action="policy.updated")
    assert record["details"]["changed"]["repositoryId"]["after"] is None


def test_a_derived_policy_keeps_its_age_and_its_use_when_its_origin_changes(provider):
    """A change of the bootstrap policy keeps the derived policy's createdAt and lastUsedAt."""
    origin = provider.policy(trustRegistered=True)
    provider.clock.advance(60)
    agent = provider.agent(headers=provider.bootstrap_headers())
    provider.clock.advance(60)
    assert provider.exchange(agentId=agent["agentId"]).status_code == 200

    def derived():
        listed = provider.get(f"{POLICIES}?agentId={agent['agentId']}").json
        (policy,) = listed["data"]
        return policy

    before = derived()
    assert before["lastUsedAt"] == "2026-11-24T12:02:00Z"
    provider.clock.advance(60)
    provider.replace_policy(origin, description="changed")

    after = derived()
    assert after["description"] == "changed"
    kept = ("createdAt", "lastUsedAt", "id", "agentId")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
