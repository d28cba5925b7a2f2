"""The post step, one scenario a test; it always ends with 0."""

import httpx
import pytest

REVOKE = "POST /token/revoke"


@pytest.fixture
def issued(world):
    """A post step whose main step issued a token."""
    world.environ |= {
        "STATE_access_token": world.access_token,
        "STATE_expires_at": "2027-01-15T09:00:00Z",
        "STATE_api_url": world.api_url,
    }
    return world


def test_token_is_revoked(issued):
    """The token is masked, then revoked with itself, and no ID token is asked for."""
    issued.script.on(REVOKE, issued.answer(json={}))
    outcome = issued.run("revoke")
    (request,) = issued.script.requests
    assert (request.path, request.authorization) == ("/api/v1/token/revoke", f"Bearer {issued.access_token}")
    assert outcome.stdout.splitlines()[0] == f"::add-mask::{issued.access_token}"
    assert outcome.stdout.splitlines()[-1] == "The access token is revoked."
    assert outcome.exit_code == 0


def test_token_goes_back_where_it_came_from(issued):
    """`api-url` may have changed with the environment by now; the token goes to its issuer alone."""
    issued.script.on(REVOKE, issued.answer(json={}))
    issued.run("revoke", api_url="https://evil.example")
    assert issued.script.requests[0].host == "idp.example.com"


def test_expired_token_is_left_alone(issued):
    """A token whose time is over needs no revocation."""
    issued.time.seconds = 10_000_000
    outcome = issued.run("revoke")
    assert issued.script.requests == []
    assert "expired at 2027-01-15T09:00:00Z" in outcome.stdout
    assert outcome.exit_code == 0


def test_no_state_is_told(world):
    """Without state there is nothing to do, and the log says why that can be."""
    outcome = world.run("revoke")
    assert outcome.stdout.startswith("Nothing to revoke: ")
    assert "act" in outcome.stdout
    assert (outcome.exit_code, world.script.requests) == (0, [])


@pytest.mark.parametrize(
    "failure",
    [
        {"status": 403, "json": {"code": "FORBIDDEN", "message": "No."}},
        {"status": 404, "text": "x"},
        {"status": 301, "headers": {"location": "/"}},
    ],
)
def test_failure_is_a_warning(issued, failure):
    """A token that cannot be revoked does not fail a job that is done."""
    issued.script.on(REVOKE, issued.answer(**failure))
    outcome = issued.run("revoke")
    assert outcome.exit_code == 0
    assert len(outcome.commands("warning")) == 1
    assert outcome.commands("error") == []


def test_provider_that_is_down_is_a_warning(issued):
    """Revocation keeps to the same budget as everything else."""
    issued.script.on(REVOKE, *[issued.answer(error=httpx.ConnectError("refused"))] * 40)
    issued.script.verify = lambda: None
    outcome = issued.run("revoke", timeout="5")
    assert (outcome.exit_code, len(outcome.commands("warning"))) == (0, 1)
    assert issued.time.seconds <= 5


@pytest.mark.parametrize(
    ("variable", "value"),
    [("STATE_api_url", ""), ("STATE_api_url", "http://evil.example"), ("INPUT_TIMEOUT", "x")],
)
def test_odd_surroundings_are_a_warning(issued, variable, value):
    """State or inputs that are not what the main step had send the token nowhere."""
    issued.environ[variable] = value
    outcome = issued.run("revoke")
    assert (outcome.exit_code, len(outcome.commands("warning"))) == (0, 1)
    assert issued.script.requests == []


def test_unreadable_expiry_is_revoked(issued):
    """A token whose end is not known is revoked."""
    issued.environ["STATE_expires_at"] = ""
    issued.script.on(REVOKE, issued.answer(json={}))
    assert issued.run("revoke").stdout.endswith("The access token is revoked.\n")


def test_fault_of_ours_is_a_warning_too(issued):
    """Whatever goes wrong, a job that is done does not fail; the fault's text could hold the token."""
    issued.script.handle_request = lambda request: (_ for _ in ()).throw(RuntimeError(issued.access_token))
    outcome = issued.run("revoke")
    assert outcome.exit_code == 0
    assert "RuntimeError in test_revoke.py" in outcome.commands("warning")[0]
    assert issued.access_token not in outcome.visible
