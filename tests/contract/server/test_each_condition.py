"""Every policy condition from end to end: written, read, decided on, explained, audited, simulated.

A condition appears in a dozen places; forgetting one of them silently widens every policy that uses it.
"""

import json
from dataclasses import dataclass, fields
from typing import Any

import pytest

from kit.provider import POLICIES, REPOSITORY
from sentryagent_idp.domain.conditions import Conditions

WORKFLOWS = "octo-org/hello-agent/.github/workflows"
CALLED = "octo-org/automation/.github/workflows/deploy.yml"


@dataclass(frozen=True)
class Row:
    """A condition: its field, its name and a value in the API, and the claim it checks.

    `meets` and `fails` are the claims with which a push to main meets the condition, or fails it and no other.
    """

    field: str
    member: str
    value: Any
    claim: str
    meets: dict[str, str]
    fails: dict[str, str]


ROWS = [
    Row(
        "branch",
        "branch",
        "main",
        "ref",
        {"ref": "refs/heads/main", "ref_type": "branch"},
        {"ref": "refs/heads/dev", "ref_type": "branch"},
    ),
    Row(
        "tag",
        "tag",
        "v1",
        "ref",
        {"ref": "refs/tags/v1", "ref_type": "tag", "workflow_ref": f"{WORKFLOWS}/ci.yml@refs/tags/v1"},
        {"ref": "refs/tags/v2", "ref_type": "tag", "workflow_ref": f"{WORKFLOWS}/ci.yml@refs/tags/v2"},
    ),
    Row(
        "environment",
        "environment",
        "production",
        "environment",
        {"environment": "production"},
        {"environment": "staging"},
    ),
    Row(
        "workflow",
        "workflow",
        "deploy.yml",
        "workflow_ref",
        {"workflow_ref": f"{WORKFLOWS}/deploy.yml@refs/heads/main"},
        {"workflow_ref": f"{WORKFLOWS}/ci.yml@refs/heads/main"},
    ),
    Row(
        "called_workflow",
        "calledWorkflow",
        f"{CALLED}@refs/tags/v1",
        "job_workflow_ref",
        {"job_workflow_ref": f"{CALLED}@refs/tags/v1"},
        {"job_workflow_ref": f"{CALLED}@refs/tags/v2"},
    ),
    Row("actor_ids", "actorIds", ["41", "42"], "actor_id", {"actor_id": "42"}, {"actor_id": "43"}),
    Row(
        "runner_environment",
        "runnerEnvironment",
        "self-hosted",
        "runner_environment",
        {"runner_environment": "self-hosted"},
        {"runner_environment": "github-hosted"},
    ),
    Row(
        "visibility",
        "visibility",
        "private",
        "repository_visibility",
        {"repository_visibility": "private"},
        {"repository_visibility": "public"},
    ),
    Row(
        "ref_protected",
        "refProtected",
        True,
        "ref_protected",
        {"ref_protected": "true"},
        {"ref_protected": "false"},
    ),
    Row(
        "properties",
        "properties",
        {"team": ["core", "web"]},
        "repo_property_team",
        {"repo_property_team": "core,web"},
        {"repo_property_team": "core,ops"},
    ),
    Row(
        "events",
        "events",
        ["push", "schedule"],
        "event_name",
        {"event_name": "schedule"},
        {"event_name": "release"},
    ),
]
each_condition = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.field)


def test_every_condition_has_a_row():
    """A new condition must be added to the table above."""
    assert sorted(row.field for row in ROWS) == sorted(it.name for it in fields(Conditions))


@each_condition
def test_it_is_stored_and_shown_as_it_was_written(row, provider):
    """The condition and its value appear in POST, PUT, GET, the list, openapi.json and the audit."""
    without = provider.policy()
    policy = provider.policy(**{row.member: row.value})
    agents = provider.trusted_agent(**{row.member: row.value})[1]

    read = provider.get(f"{POLICIES}/{policy['id']}").json
    listed = provider.get(POLICIES).json["data"]
    created = provider.audit(action="policy.created", policyId=policy["id"])

    assert policy[row.member] == read[row.member] == agents[row.member] == row.value
    assert {it["id"]: it[row.member] for it in listed} == {
        without["id"]: None,
        policy["id"]: row.value,
        agents["id"]: row.value,
    }
    assert created[0]["details"]["after"][row.member] == row.value
    assert provider.replace_policy(policy, description="again")[row.member] == row.value
    described = provider.http.get("/openapi.json").json["components"]["schemas"]
    assert row.member in described["Policy"]["properties"]
    assert row.member in described["PolicyBody"]["properties"]


@each_condition
def test_a_run_that_meets_it_gets_in_and_the_audit_says_by_what(row, provider):
    """The exchange succeeds, and its record has the claim that was checked."""
    policy = provider.policy(**{row.member: row.value})

    answer = provider.exchange(provider.github_token(**row.meets))

    assert answer.status_code == 200, answer.text
    (record,) = provider.audit(action="token.issued")
    assert record["policyId"] == policy["id"]
    assert record["details"][row.claim] == row.meets[row.claim]


@each_condition
def test_a_run_that_fails_it_alone_is_told_and_audited(row, provider):
    """The refusal has the condition, the expected value and the claim; the record has the claim."""
    policy = provider.policy(**{row.member: row.value})

    answer = provider.exchange(provider.github_token(**row.fails))

    assert answer.status_code == 403, answer.text
    details = answer.json["details"]
    (nearest,) = details["nearestPolicies"]
    (failed,) = nearest["failed"]
    assert (nearest["id"], failed["condition"], failed["expected"]) == (policy["id"], row.member, row.value)
    assert failed["hint"]
    assert details["claims"][row.claim] == row.fails[row.claim]
    (record,) = provider.audit(action="token.refused")
    assert record["details"][row.claim] == row.fails[row.claim]


@each_condition
def test_a_simulation_decides_as_the_exchange(row, provider):
    """A simulation of the same claims allows and refuses as the exchange does."""
    policy = provider.policy(**{row.member: row.value})
    run = {
        "repository": REPOSITORY,
        "repository_id": "1",
        "repository_owner_id": "2",
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "event_name": "push",
    }

    meets, fails = (
        provider.post(f"{POLICIES}/simulate", json={"claims": {**run, **claims}}).json
        for claims in (row.meets, row.fails)
    )

    assert (meets["allowed"], meets["policyId"]) == (True, policy["id"])
    assert meets["trace"] == [{"policyId": policy["id"], "matched": [row.member], "failed": []}]
    assert (fails["allowed"], fails["policyId"]) == (False, None)
    assert [it["condition"] for it in fails["trace"][0]["failed"]] == [row.member]


@each_condition
def test_its_claim_is_read_strictly(row, provider):
    """A claim that is checked must be a string; a number makes the token malformed."""
    provider.policy(**{row.member: row.value})

    answer = provider.exchange(provider.github_token(**{**row.meets, row.claim: 42}))

    assert (answer.status_code, answer.json["details"]) == (401, {"reason": "malformed"})


@each_condition
def test_two_policies_that_differ_in_it_alone_are_two(row, provider):
    """The condition makes a policy distinct and more specific."""
    provider.policy()
    provider.clock.advance(1)
    policy = provider.policy(**{row.member: row.value})

    answer = provider.exchange(provider.github_token(**row.meets), dryRun=True)

    assert answer.json["policyId"] == policy["id"]
    twin = {"repository": REPOSITORY, row.member: row.value}
    assert provider.post(POLICIES, json=twin).status_code == 409


@each_condition
def test_a_derived_policy_inherits_it(row, provider):
    """An agent registered under a bootstrap policy is trusted under the same condition."""
    provider.policy(trustRegistered=True, **{row.member: row.value})
    agent = provider.agent(headers=provider.bootstrap_headers(**row.meets))["agentId"]

    (derived,) = provider.http.get(f"{POLICIES}?agentId={agent}", headers=provider.admin).json["data"]
    meets, fails = (
        provider.exchange(provider.github_token(**claims), agentId=agent) for claims in (row.meets, row.fails)
    )

    assert (derived[row.member], meets.status_code, fails.status_code) == (row.value, 200, 403)


AUDITED = {
    "sub": "repo:octo-org/hello-agent:environment:production",
    "jti": "a71fccd5-a254-47bc-8e4b-d652c9d5233f",
    "repository_id": "1400000001",
    "repository_owner_id": "40000001",
    "ref": "refs/heads/dev",
    "ref_type": "branch",
    "ref_protected": "true",
    "sha": "1" * 40,
    "event_name": "workflow_dispatch",
    "environment": "production",
    "workflow_ref": f"{WORKFLOWS}/ci.yml@refs/heads/dev",
    "workflow_sha": "2" * 40,
    "job_workflow_ref": f"{CALLED}@refs/tags/v1",
    "job_workflow_sha": "3" * 40,
    "actor_id": "42",
    "runner_environment": "self-hosted",
    "repository_visibility": "private",
    "repo_property_team": "core",
    "repo_property_regions": "eu,us",
    "run_id": "30000000043",
    "run_attempt": "2",
    "check_run_id": "113475122442",
}
"""Every claim in the record of an exchange, each with a distinct value."""


@pytest.mark.parametrize(("branch", "action"), [("dev", "token.issued"), ("main", "token.refused")])
def test_the_audit_has_the_whole_run(branch, action, provider):
    """The records of a success and of a refusal identify the run, its commit, job and actor."""
    provider.policy(branch=branch)

    provider.exchange(provider.github_token(**AUDITED))

    (record,) = provider.audit(action=action)
    assert {name: record["details"].get(name) for name in AUDITED} == AUDITED
    assert record["repository"] == REPOSITORY


MANY = {f"repo_property_{'n' * 20}{number}": "v" * 20 for number in range(120)}
"""More properties than GitHub lets an organisation define."""


def test_any_number_of_custom_properties_gets_in(provider):
    """Properties that no policy names do not prevent an exchange; its record has all of them."""
    policy = provider.policy(branch="main", properties={f"{'n' * 20}7": ["v" * 20]})

    answer = provider.exchange(provider.github_token(**MANY))

    assert answer.status_code == 200, answer.text
    (record,) = provider.audit(action="token.issued")
    assert record["policyId"] == policy["id"]
    assert MANY.items() <= record["details"].items()


def test_many_custom_properties_leave_room_for_the_reason(provider):
    """A refusal's record is limited to 8 KiB: the properties are dropped, the trace with the failed one is kept."""
    provider.policy(properties={f"{'n' * 20}7": ["other"]})

    answer = provider.exchange(provider.github_token(**MANY))

    assert answer.status_code == 403
    claims = answer.json["details"]["claims"]
    assert {name for name in claims if "property" in name} == {f"repo_property_{'n' * 20}7"}
    (record,) = provider.audit(action="token.refused")
    details = record["details"]
    assert len(json.dumps(details)) <= 8 * 1024
    assert not MANY.keys() & details.keys()
    assert (details["truncated"], details["ref"]) == (True, "refs/heads/main")
    assert details["trace"][0]["failed"][0]["actual"] == {f"{'n' * 20}7": "v" * 20}
