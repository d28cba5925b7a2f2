"""The details of a refusal: the invalid field, the nearest policies and a suggested policy."""

import re

import pytest

from kit.provider import NOBODY, POLICIES, REPOSITORY
from kit.refusals import assert_invalid, assert_refused
from mock_idp.job import Job


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "token"),
        ({"token": None}, "token"),
        ({"token": 1}, "token"),
        ({"token": "x", "agentId": "x"}, "agentId"),
        ({"token": "x", "agentId": ""}, "agentId"),
        ({"token": "x", "agentId": NOBODY.replace("-", "")}, "agentId"),
        ({"token": "x", "agentId": f"{{{NOBODY}}}"}, "agentId"),
        ({"token": "x", "agentId": 1}, "agentId"),
        ({"token": "x", "provider": "gitlab"}, "provider"),
        ({"token": "x", "provider": "GitHub"}, "provider"),
        ({"token": "x", "scope": ""}, "scope"),
        ({"token": "x", "scope": " agents:read"}, "scope"),
        ({"token": "x", "scope": "agents:read  tokens:read"}, "scope"),
        ({"token": "x", "scope": "agents:read\n"}, "scope"),
        ({"token": "x", "scope": 'a"b'}, "scope"),
        ({"token": "x", "scope": "a\u0000"}, "scope"),
        ({"token": "x", "scope": "é"}, "scope"),
        ({"token": "x", "scope": "x" * 65}, "scope"),
        ({"token": "x", "scope": "x " * 600 + "x"}, "scope"),
        ({"token": "x", "scope": ["agents:read"]}, "scope"),
        ({"token": "x", "expiresIn": 0}, "expiresIn"),
        ({"token": "x", "expiresIn": -1}, "expiresIn"),
        ({"token": "x", "expiresIn": "60"}, "expiresIn"),
        ({"token": "x", "expiresIn": True}, "expiresIn"),
        ({"token": "x", "expiresIn": 1.0}, "expiresIn"),
        ({"token": "x", "expiresIn": 10**19}, "expiresIn"),
        ({"token": "x", "dryRun": 1}, "dryRun"),
        ({"token": "x", "dryRun": "true"}, "dryRun"),
        ({"token": "x", "agent_id": NOBODY}, "agent_id"),
        ({"token": "x", "subject_token": "x"}, "subject_token"),
    ],
)
def test_malformed_body_is_400(still_provider, body, field):
    """A field of the wrong type or form is refused by name, before the token is read."""
    assert_invalid(still_provider.http.post("/api/v1/oidc/token", json=body), field)


@pytest.mark.parametrize("status", ["unknown", "suspended", "decommissioned"])
def test_an_agent_that_is_not_active_gets_no_token(provider, status):
    """An unknown, suspended or decommissioned agent is a trust policy violation."""
    agent, _ = provider.trusted_agent()
    if status == "suspended":
        provider.patch(f"/api/v1/agents/{agent}", json={"status": status})
    elif status == "decommissioned":
        provider.delete(f"/api/v1/agents/{agent}")

    answer = provider.exchange(agentId=NOBODY if status == "unknown" else agent)

    assert assert_refused(answer, 403, "TRUST_POLICY_VIOLATION")["message"].startswith(
        "Trust policy violation"
    )


@pytest.mark.parametrize(
    ("changes", "body", "status", "code"),
    [
        ({"ref": "refs/heads/dev"}, {}, 403, "BRANCH_NOT_PERMITTED"),
        ({}, {"agentId": NOBODY}, 403, "TRUST_POLICY_VIOLATION"),
        ({}, {"scope": "audit:read"}, 403, "SCOPE_NOT_PERMITTED"),
        ({"fault": "bad-signature"}, {}, 401, "INVALID_OIDC_TOKEN"),
    ],
)
def test_dry_run_refuses_as_the_exchange_does(provider, changes, body, status, code):
    """A dry run gets the same refusal as the exchange."""
    provider.policy(branch="main")

    for dry_run in (True, False):
        assert_refused(
            provider.exchange(provider.github_token(**changes), dryRun=dry_run, **body), status, code
        )


def test_branch_alone_outranks_other_failures(provider):
    """If one candidate fails on its branch alone, the refusal is BRANCH_NOT_PERMITTED."""
    provider.policy(environment="production")
    assert_refused(provider.exchange(), 403, "TRUST_POLICY_VIOLATION")
    provider.policy(branch="dev", environment="production")
    assert_refused(provider.exchange(), 403, "TRUST_POLICY_VIOLATION")
    provider.policy(branch="dev")
    assert_refused(provider.exchange(), 403, "BRANCH_NOT_PERMITTED")


def test_branch_not_permitted_explains_itself(provider):
    """The refusal has the claims, the nearest policy with a hint, and a policy that would allow the run."""
    policy = provider.policy(branch="main", workflow="ci.yml")
    token = provider.github_token(ref="refs/heads/dev", job=Job(ref="dev"))
    job = Job(ref="dev")

    refusal = assert_refused(provider.exchange(token), 403, "BRANCH_NOT_PERMITTED")

    assert refusal["message"].startswith("Branch not permitted")
    details = refusal["details"]
    assert details.keys() == {"claims", "nearestPolicies", "suggestedPolicy"}
    assert details["claims"]["ref"] == "refs/heads/dev"
    (nearest,) = details["nearestPolicies"]
    (failed,) = nearest["failed"]
    assert (nearest["id"], nearest["matched"]) == (policy["id"], ["workflow"])
    assert (failed["condition"], failed["expected"], failed["actual"]) == ("branch", "main", "dev")
    assert failed["hint"]
    assert details["suggestedPolicy"] == {
        "provider": "github",
        "repository": REPOSITORY,
        "branch": "dev",
        "workflow": "ci.yml",
        "repositoryId": job.repository_id,
        "repositoryOwnerId": job.repository_owner_id,
        "scopes": ["agents:read"],
        "trustRegistered": False,
    }


def test_explanations_hold_three_policies_of_the_own_repository(provider):
    """At most the three nearest policies are shown, and never another repository's."""
    provider.policy(repository="octo-org/secret", branch="main")
    for branch in "abcde":
        provider.policy(branch=branch)
        provider.clock.advance(1)

    answer = provider.exchange()

    nearest = assert_refused(answer, 403, "BRANCH_NOT_PERMITTED")["details"]["nearestPolicies"]
    assert [it["failed"][0]["expected"] for it in nearest] == ["a", "b", "c"]
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ref": "refs/heads/dev"},
        {"ref": "refs/tags/v1", "ref_type": "tag"},
        {"environment": "staging"},
        {"event_name": "schedule"},
        {"repository": "octo-org/other"},
    ],
)
@pytest.mark.parametrize("with_agent", [False, True])
def test_the_suggested_policy_lets_the_run_in(provider, changes, with_agent):
    """Once details.suggestedPolicy is posted as it is, the same token can be exchanged."""
    agent = provider.agent()["agentId"] if with_agent else None
    provider.policy(branch="release", actorIds=["1"], events=["push"], visibility="internal", agentId=agent)
    token = provider.github_token(**changes)
    suggestion = provider.exchange(token, agentId=agent).json["details"]["suggestedPolicy"]

    created = provider.post(POLICIES, json=suggestion)

    assert created.status_code == 201, created.text
    assert provider.exchange(token, agentId=agent).status_code == 200


def test_the_gate_that_refused_a_run_stays(provider):
    """A required environment is never suggested away: the job must run in that environment."""
    agent, _ = provider.trusted_agent(environment="production")

    for changes in ({}, {"ref": "refs/heads/dev"}):
        details = provider.exchange(provider.github_token(**changes), agentId=agent).json["details"]
        assert details["suggestedPolicy"] is None
        hint = details["nearestPolicies"][0]["failed"][0]["hint"]
        assert "add `environment: production`" in hint


def test_the_suggested_policy_gives_what_the_nearest_gives(provider):
    """The suggestion has the scopes, maxTtl and expiresAt of the nearest policy."""
    terms = {"scopes": ["agents:write"], "maxTtl": 120, "expiresAt": "2026-12-01T12:00:00Z"}
    agent, _ = provider.trusted_agent(branch="release/*", **terms)
    token = provider.github_token(ref="refs/heads/hotfix/1")
    refusal = provider.exchange(token, agentId=agent, scope="agents:write").json
    suggestion = refusal["details"]["suggestedPolicy"]

    created = provider.post(POLICIES, json=suggestion)
    granted = provider.exchange(token, agentId=agent, scope="agents:write")

    assert {name: created.json[name] for name in terms} == terms
    assert (granted.status_code, granted.json["expires_in"]) == (200, 120)


def test_the_suggested_policy_of_a_merge_queue_lets_the_next_entry_in(provider):
    """The branch of a queue entry exists only once, so the suggestion covers the queue of its base branch."""
    provider.policy(branch="main")
    first, second = (
        provider.github_token(
            ref=f"refs/heads/gh-readonly-queue/main/pr-{number}-{'0a' * 20}", event_name="merge_group"
        )
        for number in (1, 2)
    )
    suggestion = provider.exchange(first).json["details"]["suggestedPolicy"]

    assert suggestion["branch"] == "gh-readonly-queue/main/**"
    assert provider.post(POLICIES, json=suggestion).status_code == 201
    assert provider.exchange(second).status_code == 200


@pytest.mark.parametrize(
    ("changes", "with_unknown_agent"),
    [
        ({"event_name": "pull_request"}, False),
        ({"event_name": "pull_request_target"}, False),
        ({"event_name": "workflow_run"}, False),
        ({"event_name": "issue_comment"}, False),
        ({"ref": ""}, False),
        ({"ref": "refs/heads/a*b"}, False),
        ({}, True),
    ],
)
def test_no_policy_is_suggested_for_what_none_should_let_in(provider, changes, with_unknown_agent):
    """Default-denied events, unknown agents and refs that no policy can name get no suggestion."""
    provider.policy(branch="release")
    agent = NOBODY if with_unknown_agent else None

    refusal = provider.exchange(provider.github_token(**changes), agentId=agent).json

    assert refusal["details"]["suggestedPolicy"] is None, refusal


@pytest.mark.parametrize("case", ["branch", "violation", "scope", "identity"])
def test_explain_off_says_the_code_and_no_more(provider, case):
    """With SENTRYAGENT_EXPLAIN=off a 403 has a constant message that reveals nothing about the policies."""
    provider.policy(branch="main", repositoryId="1" if case == "identity" else None)
    silent = provider.with_settings(EXPLAIN="off")
    changes = {"branch": {"ref": "refs/heads/dev"}, "violation": {"event_name": "workflow_run"}}.get(case, {})
    body = {"scope": "audit:read"} if case == "scope" else {}
    code = {
        "branch": "BRANCH_NOT_PERMITTED",
        "violation": "TRUST_POLICY_VIOLATION",
        "scope": "SCOPE_NOT_PERMITTED",
        "identity": "IDENTITY_CHANGED",
    }[case]

    loud = assert_refused(provider.exchange(provider.github_token(**changes), **body), 403, code)
    quiet = assert_refused(silent.exchange(provider.github_token(**changes), **body), 403, code, {})

    assert quiet["message"] != loud["message"]
    assert not re.search(r"main|dev|octo|audit|agents:", quiet["message"])


@pytest.mark.parametrize(
    "body", [{}, {"agent": True}, {"agent": True, "resource": "https://deploy.example.com"}]
)
def test_a_renamed_repository_is_told_where_its_policies_are(any_provider, body):
    """A renamed repository is recognised by its pinned id; a repository with another id learns nothing."""
    provider, fields = any_provider, {key: value for key, value in body.items() if key != "agent"}
    agent_id, _ = provider.trusted_agent()
    fields |= {"agentId": agent_id} if "agent" in body else {}
    assert provider.exchange(agentId=agent_id).status_code == 200

    renamed = provider.exchange(provider.github_token(repository="octo-org/renamed"), **fields)
    other = provider.exchange(
        provider.github_token(repository="octo-org/renamed", repository_id="7"), **fields
    )

    assert (renamed.status_code, other.status_code) == (403, 403)
    assert "policies of octo-org/hello-agent have its repositoryId" in renamed.json["message"]
    assert provider.repository not in other.json["message"]
