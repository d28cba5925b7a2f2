"""The end of a token after the step that issued it, and dry runs, which issue none."""

import signal
import subprocess

import pytest

from kit.processes import BIN, PATIENCE_SECONDS, ROOT
from mock_idp.client import MockClient
from mock_idp.runner.local_run import Runner, RunOptions
from mock_idp.runner.step import StepOptions

AGENT = "00000000-0000-4000-8000-000000000000"
EXCHANGE, REVOKE = "/api/v1/oidc/token", "/api/v1/token/revoke"
ISSUED = {
    "access_token": "made.up.token-of-the-test",
    "token_type": "Bearer",
    "expires_in": 3600,
    "expires_at": "2999-01-01T00:00:00Z",
    "scope": "agents:read",
    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
}


def test_the_post_step_revokes_the_token(provider, trusted_agent, run_action):
    """By default, the token is revoked at the end of the job."""
    run = run_action("issue-token", {"agent-id": trusted_agent})

    assert not provider.is_active(run.token())
    assert "The access token is revoked." in run.log
    assert run.state["access_token"] == run.outputs["access-token"]
    assert run.state["api_url"] == provider.url


def test_a_token_to_be_kept_is_in_no_state(provider, trusted_agent, run_action):
    """With `revoke: false`, the token outlives the job and is not saved, and the post step says why it revokes nothing."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "revoke": "false"})

    assert provider.is_active(run.token())
    assert run.state == {"revoke": "false"}
    assert "Nothing to revoke: `revoke` is false." in run.log


@pytest.mark.parametrize(
    "change",
    [
        {"api-url": ""},
        {"api-url": "https://evil.example"},
        {"agent-id": ""},
        {"timeout": "never"},
        {"revoke": ""},
        {"ca-certificate": "x"},
    ],
    ids=str,
)
def test_what_inputs_are_by_the_end_does_not_keep_a_token_alive(
    change, provider, github, repository, trusted_agent, environment, transcript
):
    """The post step revokes even if its inputs changed: GitHub evaluates `with:` again, in composite actions wrongly."""
    inputs = {"api-url": provider.url, "agent-id": trusted_agent, "timeout": "60", "revoke": "true"}
    evaluations = iter([inputs, inputs | change])
    log = []

    result = Runner(environment, log.append).run_action(
        ROOT / "issue-token",
        MockClient(github.url).job(repository=repository),
        RunOptions(),
        lambda: StepOptions(next(evaluations)),
    )

    transcript.add("the runner's log", "\n".join(log))
    assert result.outcome == "success", log
    assert next(evaluations, None) is None
    assert not provider.is_active(result.record.outputs["access-token"])
    assert any("The access token is revoked." in line for line in log)


@pytest.mark.parametrize("expires_at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_the_token_of_a_broken_answer_is_revoked(expires_at, stranger, run_action):
    """An `expires_at` outside the calendar fails the step, and the issued token is revoked."""
    stranger.answer(EXCHANGE, (200, ISSUED | {"expires_at": expires_at}))
    stranger.answer(REVOKE, (200, {}))

    run = run_action("issue-token", {"api-url": stranger.url, "agent-id": AGENT})

    assert run.exit_code == 1
    assert run.outputs["error-code"] == "INVALID_RESPONSE"
    assert "access-token" not in run.outputs
    assert [body for path, body in stranger.requests if path == REVOKE] == [
        b"token=made.up.token-of-the-test"
    ]


@pytest.mark.parametrize("action", ["issue-token", "register-agent"])
def test_a_step_that_is_cancelled_revokes(action, stranger, github, repository, environment, tmp_path):
    """SIGTERM during the exchange: a token that is still issued is revoked, by the post step or before the step ends."""
    stranger.answer(EXCHANGE, (200, ISSUED))
    stranger.answer(REVOKE, (200, {}))
    words = [f"--url={github.url}", f"--repository={repository}", f"--input=api-url={stranger.url}"]
    words.append(
        f"--input=agent-id={AGENT}" if action == "issue-token" else "--input=agent-name=bot@example.com"
    )
    command = [BIN / "mock-idp", "run", ROOT / action, *words]

    with (
        stranger.held(EXCHANGE) as (asked, release),
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert asked.wait(20)
        process.send_signal(signal.SIGTERM)
        release.set()
        log, _ = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 143, log
    assert "##[error]The operation was canceled." in log
    assert [path for path, _ in stranger.requests if path == REVOKE] == [REVOKE], log


def test_the_root_action_revokes_too(provider, repository, agent_name, run_action):
    """The one-step action's post step revokes the token."""
    provider.policy(repository, trustRegistered=True)

    run = run_action("", {"agent-name": agent_name})

    assert not provider.is_active(run.token())


def test_a_revocation_that_fails_is_a_warning(stranger, run_action):
    """A failed revocation does not fail the job; the warning says when the token expires."""
    stranger.answer(EXCHANGE, (200, ISSUED))
    stranger.answer(REVOKE, (403, {"error": "unauthorized_client"}))

    run = run_action("issue-token", {"api-url": stranger.url, "agent-id": AGENT, "timeout": "2"})

    assert run.outcome == "success"
    assert run.only_annotation()["level"] == "warning"
    assert "expires by itself at 2999-01-01T00:00:00Z" in run.only_annotation()["message"]


def test_a_lifetime_that_was_asked_for_is_kept(provider, trusted_agent, run_action):
    """`expires-in` shortens the token's lifetime."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "revoke": "false", "expires-in": "120"})

    claims = provider.verify(run.token())
    assert claims["exp"] - claims["iat"] == int(run.outputs["expires-in"]) == 120


def test_a_dry_run_issues_nothing(trusted_agent, run_action):
    """A dry run reports the scope that would be granted, and no token."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "dry-run": "true"})

    assert run.outcome == "success"
    assert run.outputs == {"authenticated": "false", "scope": "agents:read"}
    assert run.state == {}


@pytest.mark.parametrize("action", ["register-agent", ""])
def test_a_dry_run_registers_nothing(action, provider, repository, agent_name, run_action):
    """A dry run checks the registration but creates no agent."""
    provider.policy(repository, trustRegistered=True)

    run = run_action(action, {"agent-name": agent_name, "dry-run": "true"})

    assert run.outcome == "success"
    assert run.outputs["created"] == "false"
    assert provider.agents_named(agent_name) == []


def test_the_two_steps_of_a_workflow_can_be_tried_dry(provider, repository, agent_name, run_action):
    """In a dry run of the whole workflow, issue-token has no agent id: it warns, and the workflow passes."""
    provider.policy(repository, trustRegistered=True)

    tried = run_action("register-agent", {"agent-name": agent_name, "dry-run": "true"})
    run = run_action("issue-token", {"agent-id": tried.outputs.get("agent-id", ""), "dry-run": "true"})

    assert run.outcome == "success"
    assert run.outputs == {"authenticated": "false"}
    assert "`agent-id` is empty, so this dry run did not check a token" in run.log


def test_a_dry_run_tells_a_refusal(trusted_agent, run_action):
    """A dry run fails with the refusal that the real run would get."""
    run = run_action("issue-token", {"agent-id": trusted_agent, "dry-run": "true"}, ref="refs/heads/feature")

    assert run.exit_code == 1
    assert run.outputs["error-code"] == "BRANCH_NOT_PERMITTED"
