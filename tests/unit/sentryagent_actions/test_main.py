"""The entry point: which action, and what no action handles."""

import io
import os

import pytest

import sentryagent_actions.__main__ as entry


@pytest.mark.parametrize("arguments", [[], ["deploy"], ["issue-token", "extra"]])
def test_unknown_action_is_a_usage_error(arguments):
    """Without the name of an action there is one line of usage and exit code 2."""
    stdout = io.StringIO()
    assert entry.main(arguments, {}, stdout) == 2
    assert (
        stdout.getvalue()
        == "usage: python -m sentryagent_actions issue-token|register-agent|toolkit|revoke\n"
    )


@pytest.mark.parametrize("action", ["issue-token", "register-agent", "toolkit"])
def test_outside_a_workflow_the_remedy_is_named(action):
    """Started by hand, every action says how to run it, and asks nobody for a token."""
    stdout = io.StringIO()
    assert entry.main([action], {}, stdout) == 1
    assert "mock-idp run" in stdout.getvalue()
    assert stdout.getvalue().count("::error") == 1


def failing(error):
    def run(step):
        raise error

    return run


def test_fault_of_ours_shows_its_place_not_its_text(monkeypatch):
    """An unexpected exception is one annotation with type and place; its text could hold a credential."""
    monkeypatch.setattr(entry, "_ACTIONS", {"issue-token": failing(RuntimeError("secret"))})
    stdout = io.StringIO()
    assert entry.main(["issue-token"], {}, stdout) == 1
    assert "RuntimeError in test_main.py, line" in stdout.getvalue()
    assert "secret" not in stdout.getvalue()


def test_cancellation_is_quiet(monkeypatch):
    """A cancelled job gets no traceback."""
    monkeypatch.setattr(entry, "_ACTIONS", {"issue-token": failing(KeyboardInterrupt())})
    stdout = io.StringIO()
    assert entry.main(["issue-token"], os.environ, stdout) == 130
    assert stdout.getvalue() == "Cancelled.\n"
