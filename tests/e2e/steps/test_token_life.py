"""What becomes of a token after the step that issued it, and runs that issue none on purpose."""

import pytest

AGENT = "00000000-0000-4000-8000-000000000000"


def test_the_post_step_revokes_the_token(provider, trusted_agent, run_action):
    """By default the token is worth nothing once the job has ended."""
    run = run_action("issue-token", {"agent-id": trusted_agent})

    assert not provider.is_active(run.token())
    assert "The access token is revoked." in run.log
    assert run.state["access_token"] == run.outputs["access-token"]
    assert run.state["api_url"] == provider.url


def test_a_token_to_be_kept_is_in_no_state(provider, trusted_agent, run_action):
    """With revoke: false the token outlives the job, and the runner is given nothing to keep."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "revoke": "false"})

    assert provider.is_active(run.token())
    assert run.state == {}


def test_the_root_action_revokes_too(provider, repository, agent_name, run_action):
    """The one-step action's post step is the same."""
    provider.policy(repository, trustRegistered=True)

    run = run_action("", {"agent-name": agent_name})

    assert not provider.is_active(run.token())


def test_a_revocation_that_fails_is_a_warning(stranger, run_action):
    """The job's work is done when the post step runs: what cannot be revoked expires by itself."""
    issued = {"access_token": "made.up.token-of-the-test", "token_type": "Bearer", "scope": "agents:read"}
    lifetime = {"expires_in": 3600, "expires_at": "2999-01-01T00:00:00Z"}
    kind = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    stranger.answer("/api/v1/oidc/token", (200, issued | lifetime | kind))
    stranger.answer("/api/v1/token/revoke", (403, {"error": "unauthorized_client"}))

    run = run_action("issue-token", {"api-url": stranger.url, "agent-id": AGENT, "timeout": "2"})

    assert run.outcome == "success"
    assert run.only_annotation()["level"] == "warning"
    assert "expires by itself at 2999-01-01T00:00:00Z" in run.only_annotation()["message"]


def test_a_lifetime_that_was_asked_for_is_kept(provider, trusted_agent, run_action):
    """expires-in shortens the token's life."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "revoke": "false", "expires-in": "120"})

    claims = provider.verify(run.token())
    assert claims["exp"] - claims["iat"] == int(run.outputs["expires-in"]) == 120


def test_a_dry_run_issues_nothing(trusted_agent, run_action):
    """The scope that would be granted is shown, and there is no token."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "dry-run": "true"})

    assert run.outcome == "success"
    assert run.outputs == {"authenticated": "false", "scope": "agents:read"}
    assert run.state == {}


@pytest.mark.parametrize("action", ["register-agent", ""])
def test_a_dry_run_registers_nothing(action, provider, repository, agent_name, run_action):
    """The registration is decided and not done."""
    provider.policy(repository, trustRegistered=True)

    run = run_action(action, {"agent-name": agent_name, "dry-run": "true"})

    assert run.outcome == "success"
    assert run.outputs["created"] == "false"
    assert provider.agents_named(agent_name) == []


def test_a_dry_run_tells_a_refusal(trusted_agent, run_action):
    """A dry run of a run that would be refused fails as that run would."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "dry-run": "true"}, ref="refs/heads/feature")

    assert run.exit_code == 1
    assert run.outputs["error-code"] == "BRANCH_NOT_PERMITTED"
