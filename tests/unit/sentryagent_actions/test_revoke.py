"""The post step, one scenario per test; its exit code is always 0."""

import httpx
import pytest

from sentryagent_actions import network, step

REVOKE = "POST /token/revoke"


@pytest.fixture
def issued(world):
    """A post step whose main step issued a token."""
    world.environ |= {
        "STATE_access_token": world.access_token,
        "STATE_expires_at": "2027-01-15T09:00:00Z",
        "STATE_api_url": world.api_url,
        "STATE_ca_certificate": "",
        "STATE_timeout": "60",
    }
    return world


def test_token_is_revoked(issued):
    """The token is masked, then revokes itself, and no ID token is requested."""
    issued.script.on(REVOKE, issued.answer(json={}))
    outcome = issued.run("revoke")
    (request,) = issued.script.requests
    assert (request.path, request.authorization) == ("/api/v1/token/revoke", f"Bearer {issued.access_token}")
    assert outcome.stdout.splitlines()[0] == f"::add-mask::{issued.access_token}"
    assert outcome.stdout.splitlines()[-1] == "The access token is revoked."
    assert outcome.exit_code == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_url", ""),
        ("api_url", "https://evil.example"),
        ("api_url", "no URL"),
        ("agent_id", ""),
        ("audience", "two\nlines"),
        ("timeout", "x"),
        ("timeout", "1"),
        ("revoke", "false"),
        ("revoke", "maybe"),
        ("dry_run", "true"),
        ("on_unavailable", "perhaps"),
        ("ca_certificate", "no PEM"),
    ],
)
def test_inputs_do_not_count(issued, name, value):
    """GitHub evaluates `with:` again for the post step; whatever the inputs are now, the token goes to its issuer."""
    issued.script.on(REVOKE, issued.answer(json={}))
    outcome = issued.run("revoke", **{name: value})
    assert issued.script.requests[0].host == "idp.example.com"
    assert outcome.stdout.endswith("The access token is revoked.\n")


def test_no_input_is_looked_at(issued):
    """The post step reads no input at all."""

    class Environment(dict):
        def __or__(self, other):
            return Environment({**self, **other})

        def get(self, name, default=None):
            assert not name.startswith("INPUT_")
            return super().get(name, default)

    issued.environ = Environment(issued.environ)
    issued.script.on(REVOKE, issued.answer(json={}))
    assert issued.run("revoke").exit_code == 0


def test_certificate_of_the_state_is_trusted(issued, monkeypatch):
    """The certificate of the main step is trusted, not the post step's input."""
    trusted = []

    def open_client(*, ca_certificate, **others):
        trusted.append(ca_certificate)
        return network.open_client(ca_certificate="", **others)

    monkeypatch.setattr(step, "open_client", open_client)
    issued.environ["STATE_ca_certificate"] = "of the main step"
    issued.script.on(REVOKE, issued.answer(json={}))
    issued.run("revoke", ca_certificate="of the post step")
    assert trusted == ["of the main step"]


def test_a_token_that_seems_expired_is_revoked(issued):
    """A token that seems expired is revoked: the clock or the provider may be wrong."""
    issued.time.seconds = 10_000_000
    issued.script.on(REVOKE, issued.answer(json={}))
    outcome = issued.run("revoke")
    assert len(issued.script.requests) == 1
    assert "The access token is revoked." in outcome.stdout


ACT = "act does not pass state to a post step. A token that this step issued expires by itself."


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "this step issued no token."),
        ({"ACT": "false"}, "this step issued no token."),
        ({"ACT": "true"}, ACT),
        ({"STATE_revoke": "false"}, "`revoke` is false. The token of this step expires by itself."),
    ],
)
def test_reason_for_which_nothing_is_revoked(world, variables, reason):
    """The log says why nothing is revoked: no token, `revoke: false`, or a runner without state."""
    world.environ |= variables
    outcome = world.run("revoke")
    assert outcome.stdout == f"Nothing to revoke: {reason}\n"
    assert (outcome.exit_code, world.script.requests) == (0, [])


@pytest.mark.parametrize(
    ("inputs", "answer"),
    [
        ({"dry_run": "true"}, lambda world: world.permission()),
        ({}, lambda world: world.refusal(403, "TRUST_POLICY_VIOLATION")),
        ({"on_unavailable": "skip", "timeout": "1"}, lambda world: world.answer(status=503, text="busy")),
    ],
    ids=["dry", "failed", "skipped"],
)
def test_step_that_issued_no_token_says_so(world, inputs, answer):
    """After a dry run, a failure or a skip, the post step says that no token was issued."""
    world.script.on("POST /oidc/token", *[answer(world)] * 9)
    world.script.verify = lambda: None
    main = world.run("issue-token", agent_id=world.agent_id, **inputs)
    world.environ |= {f"STATE_{key}": value for key, value in main.state.items()}
    assert world.run("revoke").stdout == "Nothing to revoke: this step issued no token.\n"


@pytest.mark.parametrize(
    "failure",
    [
        {"status": 403, "json": {"code": "FORBIDDEN", "message": "No."}},
        {"status": 404, "text": "x"},
        {"status": 301, "headers": {"location": "/"}},
    ],
)
def test_failure_is_a_warning(issued, failure):
    """A failed revocation does not fail the finished job."""
    issued.script.on(REVOKE, issued.answer(**failure))
    outcome = issued.run("revoke")
    assert outcome.exit_code == 0
    assert len(outcome.commands("warning")) == 1
    assert outcome.commands("error") == []


@pytest.mark.parametrize(
    ("timeout", "at_least", "at_most"),
    [
        ("5", 2, 5),
        ("10", 5, 10),
        ("11", 5, 10),
        ("600", 5, 10),
        ("", 5, 10),
        ("x", 5, 10),
        ("9" * 5000, 5, 10),
    ],
)
def test_provider_that_is_down_is_a_warning(issued, timeout, at_least, at_most):
    """Revocation takes at most 10 s, or the main step's `timeout` if that is shorter."""
    issued.script.on(REVOKE, *[issued.answer(error=httpx.ConnectError("refused"))] * 40)
    issued.script.verify = lambda: None
    issued.environ["STATE_timeout"] = timeout
    outcome = issued.run("revoke")
    assert (outcome.exit_code, len(outcome.commands("warning"))) == (0, 1)
    assert at_least < issued.time.seconds <= at_most


@pytest.mark.parametrize(
    ("variable", "value"),
    [("STATE_api_url", ""), ("STATE_api_url", "http://evil.example"), ("STATE_ca_certificate", "no PEM")],
)
def test_odd_state_is_a_warning(issued, variable, value):
    """With a corrupt state the token is not sent anywhere."""
    issued.transport = issued.transport if variable == "STATE_api_url" else None
    issued.environ[variable] = value
    outcome = issued.run("revoke")
    assert (outcome.exit_code, len(outcome.commands("warning"))) == (0, 1)
    assert issued.script.requests == []


@pytest.mark.parametrize("expires_at", ["", "soon", "0001-01-01T00:00:00", "9999-12-31T23:59:59-23:59"])
def test_unreadable_expiry_is_revoked(issued, expires_at):
    """A token with an unreadable expiry is revoked."""
    issued.environ["STATE_expires_at"] = expires_at
    issued.script.on(REVOKE, issued.answer(json={}))
    assert issued.run("revoke").stdout.endswith("The access token is revoked.\n")


def test_fault_of_ours_is_a_warning_too(issued):
    """An unexpected error is only a warning, without its text, which could contain the token."""
    issued.script.handle_request = lambda request: (_ for _ in ()).throw(RuntimeError(issued.access_token))
    outcome = issued.run("revoke")
    assert outcome.exit_code == 0
    assert "RuntimeError in test_revoke.py" in outcome.commands("warning")[0]
    assert issued.access_token not in outcome.visible
