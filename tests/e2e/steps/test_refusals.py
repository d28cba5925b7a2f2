"""Runs that get no token: each failure has one annotation with cause and remedy, and outputs for the next steps."""

import json
import shlex
from uuid import uuid4

import pytest

NO_AGENT = "00000000-0000-4000-8000-000000000000"


def suggested_policy(run):
    """The policy in the curl command that the annotation offers to an admin."""
    command = next(line for line in run.only_annotation()["message"].splitlines() if line.startswith("curl "))
    words = shlex.split(command)
    return json.loads(words[words.index("--data") + 1])


def assert_refused(run, code, status, *, retryable="false"):
    """Assert that the step failed with this code in its outputs, annotation and summary."""
    assert run.exit_code == 1
    assert run.outcome == "failure"
    assert run.outputs["error-code"] == code
    assert run.outputs["http-status"] == status
    assert run.outputs["retryable"] == retryable
    annotation = run.only_annotation()
    assert annotation["level"] == "error"
    assert annotation["title"] == f"SentryAgent: {code}"
    assert code in run.summary
    assert run.state == {}


def test_another_branch_is_refused_with_what_differs(provider, trusted_agent, run_action):
    """The annotation names the failed condition, the expected and actual value, and the request id of the audit record."""
    run = run_action("issue-token", {"agent-id": trusted_agent}, ref="refs/heads/feature")

    assert_refused(run, "BRANCH_NOT_PERMITTED", "403")
    message = run.only_annotation()["message"]
    assert message.startswith(f"BRANCH_NOT_PERMITTED from {provider.url}: Branch not permitted")
    assert "branch: expected main, actual feature" in message
    assert run.outputs["authenticated"] == "false"
    assert "access-token" not in run.outputs
    request_id = run.outputs["request-id"]
    assert f"Request id: {request_id}" in message
    audit = provider.admin.get("/audit", params={"requestId": request_id}).raise_for_status().json()["data"]
    assert [(record["requestId"], record["agentId"]) for record in audit] == [(request_id, trusted_agent)]


@pytest.mark.parametrize("ref", ["refs/heads/feature", "refs/tags/v1.2.3"])
def test_the_suggested_policy_lets_the_same_run_in(ref, provider, trusted_agent, run_action):
    """The policy in the annotation is all that was missing."""
    refused = run_action("issue-token", {"agent-id": trusted_agent}, ref=ref)

    created = provider.admin.post("/oidc/trust-policies", json=suggested_policy(refused))
    allowed = run_action("issue-token", {"agent-id": trusted_agent}, ref=ref)

    assert created.status_code == 201, created.text
    assert allowed.outcome == "success"


def test_a_repository_without_policy_is_refused(register):
    """A repository without a policy cannot register an agent; the annotation has the policy that it needs."""
    run = register()

    assert_refused(run, "TRUST_POLICY_VIOLATION", "403")
    assert "Trust policy violation" in run.only_annotation()["message"].splitlines()[0]
    assert "agentId" not in suggested_policy(run)
    assert "agent-id" not in run.outputs


def test_an_unknown_agent_is_refused_without_a_policy_to_paste(trusted_agent, run_action):
    """No policy can help an agent that does not exist, so none is offered."""
    run = run_action("issue-token", {"agent-id": str(uuid4())})

    assert_refused(run, "TRUST_POLICY_VIOLATION", "403")
    assert "curl" not in run.only_annotation()["message"]
    assert "agent" in run.only_annotation()["message"]


def test_a_suspended_agent_gets_no_token_and_fails_its_registration(
    provider, repository, trusted_agent, register, run_action
):
    """A suspended agent gets no token at once, and registering it again fails."""
    provider.policy(repository)
    suspended = provider.admin.patch(f"/agents/{trusted_agent}", json={"status": "suspended"})
    assert suspended.status_code == 200

    assert_refused(run_action("issue-token", {"agent-id": trusted_agent}), "TRUST_POLICY_VIOLATION", "403")
    assert register().outputs["error-code"] == "AGENT_ALREADY_EXISTS"


def test_a_name_that_an_admin_took_is_not_shown(provider, repository, agent_name, register):
    """If another party has the agent's name, the conflict does not reveal the agent's id and says what to do."""
    agent_id = provider.agent(agent_name)
    provider.policy(repository)

    run = register()

    assert_refused(run, "AGENT_ALREADY_EXISTS", "409")
    assert "choose another `agent-name`" in run.only_annotation()["message"]
    assert agent_id not in run.log + run.summary + json.dumps(run.annotations)


def test_more_scope_than_the_policy_gives_is_refused(trusted_agent, run_action):
    """Requesting a scope beyond the policy fails with the permitted scopes."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "scope": "agents:read agents:write"})

    assert_refused(run, "SCOPE_NOT_PERMITTED", "403")
    message = run.only_annotation()["message"]
    assert "does not have the scope agents:write" in message
    assert "agents:read." in message


def test_a_pull_request_is_refused_unless_listed(provider, repository, agent_name, run_action):
    """An event that strangers can trigger must be listed in a policy, and no policy is suggested for it."""
    agent_id = provider.agent(agent_name)
    provider.policy(repository, agentId=agent_id)

    run = run_action("issue-token", {"agent-id": agent_id}, event="pull_request")

    assert_refused(run, "TRUST_POLICY_VIOLATION", "403")
    assert "curl" not in run.only_annotation()["message"]


def test_a_job_without_the_permission_reads_the_yaml(github, repository, trusted_agent, run_action):
    """Without `id-token: write`, the annotation shows the lines to add, and `on-unavailable: skip` does not hide it."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "on-unavailable": "skip"}, id_token="none")

    assert_refused(run, "ID_TOKEN_UNAVAILABLE", "")
    assert "permissions:\n  id-token: write\n" in run.only_annotation()["message"]
    assert run.outputs["authenticated"] == "false"
    assert github.id_token_requests(repository) == []


def test_a_fork_reads_that_it_cannot_have_one(trusted_agent, run_action):
    """A pull request from a fork never gets an ID token, so the advice is an `if:` condition, not a permission."""
    run = run_action("issue-token", {"agent-id": trusted_agent}, id_token="fork", event="pull_request")

    assert_refused(run, "ID_TOKEN_UNAVAILABLE", "")
    message = run.only_annotation()["message"]
    assert "to pull requests from forks" in message
    assert "github.event.pull_request.head.repo.full_name == github.repository" in message


BAD_INPUTS = [
    ("issue-token", {"agent-id": ""}, "agent-id"),
    ("issue-token", {"agent-id": "release-bot"}, "agent-id"),
    ("issue-token", {"agent-id": NO_AGENT, "api-url": ""}, "api-url"),
    ("issue-token", {"agent-id": NO_AGENT, "api-url": "http://idp.example.com"}, "api-url"),
    ("issue-token", {"agent-id": NO_AGENT, "api-url": "https://idp.example.com/api"}, "api-url"),
    ("issue-token", {"agent-id": NO_AGENT, "timeout": "soon"}, "timeout"),
    ("issue-token", {"agent-id": NO_AGENT, "expires-in": "-1"}, "expires-in"),
    ("issue-token", {"agent-id": NO_AGENT, "revoke": "yes"}, "revoke"),
    ("issue-token", {"agent-id": NO_AGENT, "on-unavailable": "ignore"}, "on-unavailable"),
    ("issue-token", {"agent-id": NO_AGENT, "on-unavailable": "skip", "dry-run": "perhaps"}, "dry-run"),
    ("issue-token", {"agent-id": NO_AGENT, "ca-certificate": "none"}, "ca-certificate"),
    ("register-agent", {"agent-name": "release-bot"}, "agent-name"),
    ("register-agent", {"agent-name": ""}, "agent-name"),
    ("", {"agent-id": NO_AGENT, "agent-name": "bot@octo-org.example"}, "agent-id"),
    ("", {}, "agent-id"),
]


@pytest.mark.parametrize(("action", "inputs", "named"), BAD_INPUTS)
def test_a_bad_input_is_refused_before_any_request(
    action, inputs, named, github, repository, stranger, run_action
):
    """The annotation names the input, and neither GitHub nor the provider receives a request."""
    run = run_action(action, {"api-url": stranger.url} | inputs)

    assert_refused(run, "INVALID_INPUT", "")
    assert run.only_annotation()["message"].startswith(f"INVALID_INPUT from this action: Input `{named}` ")
    assert stranger.requests == []
    assert github.id_token_requests(repository) == []
