"""A server whose response never ends, although each byte arrives within the limit on reads."""

import pytest

from kit.http import drip, listening

AGENT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def dripping():
    """The URL of a server that sends a status line and then an endless header."""
    with listening(lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x")) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(("choice", "exit_code"), [("fail", 1), ("skip", 0)])
def test_a_server_that_never_ends_its_headers_does_not_hold_the_step(choice, exit_code, dripping, run_action):
    """The step ends after `timeout` with PROVIDER_TIMEOUT."""
    inputs = {"api-url": dripping, "agent-id": AGENT, "timeout": "1", "on-unavailable": choice}

    run = run_action("issue-token", inputs)

    assert run.exit_code == exit_code
    assert run.outputs["error-code"] == "PROVIDER_TIMEOUT"
    assert run.outputs["authenticated"] == "false"
    assert "the response was not complete within `timeout`" in run.only_annotation()["message"]
