"""The entry point: choice of the action, and errors that no action handles."""

import io
import os
import subprocess
import sys

import pytest

import sentryagent_actions.__main__ as entry


@pytest.mark.parametrize("arguments", [[], ["deploy"], ["issue-token", "extra"]])
def test_unknown_action_is_a_usage_error(arguments):
    """Without a valid action the usage is printed, and the exit code is 2."""
    stdout = io.StringIO()
    assert entry.main(arguments, {}, stdout) == 2
    assert stdout.getvalue() == "usage: sentryagent-actions issue-token|register-agent|toolkit|revoke\n"


@pytest.mark.parametrize("action", ["issue-token", "register-agent", "toolkit"])
def test_outside_a_workflow_the_remedy_is_named(action):
    """Outside a workflow every action says how to run it, and requests no token."""
    stdout = io.StringIO()
    assert entry.main([action], {}, stdout) == 1
    assert "mock-idp run" in stdout.getvalue()
    assert stdout.getvalue().count("::error") == 1


def failing(error):
    def run(step):
        raise error

    return run


def test_fault_of_ours_shows_its_place_not_its_text(monkeypatch, world):
    """An unexpected exception is reported with its place but without its text, which may hold a credential."""
    monkeypatch.setattr(entry, "_ACTIONS", {"issue-token": failing(RuntimeError("secret"))})
    stdout = io.StringIO()
    assert entry.main(["issue-token"], world.environ, stdout) == 1
    assert "RuntimeError in test_main.py, line" in stdout.getvalue()
    assert stdout.getvalue().count("::error") == 1
    outputs = world.files["output"].read_text()
    assert "\nINTERNAL_ERROR\n" in outputs
    assert "secret" not in stdout.getvalue() + outputs + world.files["step_summary"].read_text()


def test_fault_where_outputs_cannot_be_set_is_still_one_annotation(monkeypatch):
    """Without GITHUB_OUTPUT there is only the annotation."""
    monkeypatch.setattr(entry, "_ACTIONS", {"issue-token": failing(RuntimeError("secret"))})
    stdout = io.StringIO()
    assert entry.main(["issue-token"], {}, stdout) == 1
    assert stdout.getvalue().count("::error") == 1


@pytest.mark.parametrize("action", ["issue-token", "toolkit"])
def test_fault_of_ours_leaves_authenticated_false(monkeypatch, world, action):
    """An unexpected error also sets `authenticated` to false."""
    monkeypatch.setattr(entry.issue_token.IssueTokenInputs, "from_environ", failing(RuntimeError("x")))
    monkeypatch.setattr(entry.one_step.OneStepInputs, "from_environ", failing(RuntimeError("x")))
    assert entry.main([action], world.environ, io.StringIO()) == 1
    assert "\nfalse\n" in world.files["output"].read_text().partition("error-code")[0]


def test_cancellation_is_quiet(monkeypatch):
    """A cancelled job shows no traceback."""
    monkeypatch.setattr(entry, "_ACTIONS", {"issue-token": failing(KeyboardInterrupt())})
    stdout = io.StringIO()
    assert entry.main(["issue-token"], os.environ, stdout) == 130
    assert stdout.getvalue() == "Cancelled.\n"


def test_what_is_printed_is_out_at_once():
    """Output is not buffered, even without Python's -u: an unflushed mask would be lost when the step is killed."""
    code = (
        "import os, signal\n"
        "from sentryagent_actions import __main__ as entry\n"
        "def main(arguments, environ, stdout, cancellation):\n"
        "    stdout.write('::add-mask::secret\\n')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "entry.main = main\n"
        "entry.start([])\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    killed = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert (killed.returncode, killed.stdout) == (-9, "::add-mask::secret\n")
