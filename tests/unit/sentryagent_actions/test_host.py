"""Without Docker: options instead of inputs, and a file instead of the post step's state."""

import io
import json
import stat
from pathlib import Path

import pytest

from sentryagent_actions import command_line, host
from sentryagent_actions.step import Step
from sentryagent_actions.workflow import Workflow

REVOKE = "POST /token/revoke"


@pytest.fixture
def runner(world, tmp_path):
    """A runner with a temporary folder."""
    (tmp_path / "temp").mkdir()
    world.environ |= {"RUNNER_TEMP": str(tmp_path / "temp"), "GITHUB_STATE": "of-the-runner"}
    return world


def revoke(world):
    stdout = io.StringIO()
    step = Step(world.environ, Workflow(world.environ, stdout), world.time.clock(), world.transport)
    assert host.revoke_all(step) == 0
    return stdout.getvalue()


def keep(world, **state):
    """Save a token as a step does."""
    environ = host.with_state(world.environ)
    Workflow(environ, io.StringIO()).save_state(
        {"access_token": world.access_token, "api_url": world.api_url, "ca_certificate": "", "timeout": "60"}
        | state
    )
    return Path(environ["GITHUB_STATE"])


def test_state_is_in_a_file_of_the_runners_user(runner):
    """State goes to a private file, not to the runner's own, which no post step would read."""
    file = keep(runner)
    assert file.parent.parent == Path(runner.environ["RUNNER_TEMP"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_without_a_temporary_folder_there_is_no_state(world):
    """Without a temporary folder no state is kept."""
    assert "GITHUB_STATE" not in host.with_state(world.environ)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_token_is_revoked_once(runner, line_end):
    """Each token is revoked once, at its own provider and with its step's certificate; the files are removed."""
    files = [keep(runner), keep(runner, ca_certificate="two\nlines")]
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"\n", line_end.encode()))
    runner.script.on(REVOKE, runner.answer(json={}), runner.answer(json={}))
    assert revoke(runner).count("The access token is revoked.") == 2
    assert not any(file.exists() for file in files)
    assert revoke(runner) == "Nothing to revoke: no step of this job has issued a token.\n"


def test_step_that_issued_nothing_leaves_nothing(runner):
    """A failed step leaves an empty file, which is skipped and removed."""
    host.with_state(runner.environ)
    assert revoke(runner) == "Nothing to revoke: no step of this job has issued a token.\n"
    assert list(Path(runner.environ["RUNNER_TEMP"]).rglob("*.state")) == []


def test_token_that_cannot_be_revoked_is_a_warning(runner):
    """A token that cannot be revoked causes a warning and does not fail the job."""
    keep(runner)
    runner.script.on(REVOKE, runner.refusal(403, "FORBIDDEN"))
    assert "::warning title=SentryAgent%3A token not revoked::" in revoke(runner)


def test_options_are_inputs():
    """Options set the variables that the runner would set; a boolean option needs no value."""
    arguments = ["--api-url", "https://idp.example.com", "--dry-run", "--summary", "false"]
    assert command_line.inputs_of("issue-token", arguments, {}) == {
        "INPUT_API-URL": "https://idp.example.com",
        "INPUT_DRY-RUN": "true",
        "INPUT_SUMMARY": "false",
    }


def test_inputs_of_a_composite_action():
    """`--inputs-from` reads all inputs from one variable with `toJSON(inputs)`; options override them."""
    inputs = {"api-url": "https://idp.example.com", "ca-certificate": "two\nlines", "scope": ""}
    arguments = ["--inputs-from", "ALL", "--scope", "agents:read"]
    assert command_line.inputs_of("issue-token", arguments, {"ALL": json.dumps(inputs)}) == {
        "INPUT_API-URL": "https://idp.example.com",
        "INPUT_CA-CERTIFICATE": "two\nlines",
        "INPUT_SCOPE": "agents:read",
    }


@pytest.mark.parametrize("value", [None, "", "{", "7", "[1]"])
def test_variable_without_inputs_is_a_usage_error(value, capsys):
    """A usage error goes to stderr, because the runner looks for commands in stdout."""
    environ = {} if value is None else {"ALL": value}
    with pytest.raises(SystemExit) as end:
        command_line.inputs_of("issue-token", ["--inputs-from", "ALL"], environ)
    assert end.value.code == 2
    assert capsys.readouterr() == (
        "",
        "sentryagent-actions: the variable ALL must contain a JSON object with the inputs\n",
    )
