"""The log has one line for each request, with nothing that a client wrote into the URL."""

import json

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from kit.provider import NOBODY


@pytest.fixture
def logged():
    """The log lines, with their request ids."""
    with capture_logs(processors=[merge_contextvars]) as lines:
        yield lines


def test_an_answer_is_one_line(provider, logged):
    """A line has the method, route, status, duration in milliseconds, address and the response's request id."""
    answer = provider.get(f"/api/v1/agents/{NOBODY}?x=secret")
    provider.http.get("/health", environ_base={"REMOTE_ADDR": "192.0.2.7"})

    refused, answered = logged

    assert refused["requestId"] == answer.headers["X-Request-Id"]
    assert (refused["event"], refused["log_level"], refused["status"]) == ("refused", "info", 404)
    assert (refused["method"], refused["route"]) == ("GET", "/api/v1/agents/<agent_id>")
    assert refused["code"] == "AGENT_NOT_FOUND"
    assert refused["durationMs"] >= 0
    assert (answered["event"], answered["route"], answered["status"]) == ("answered", "/health", 200)
    assert answered["log_level"] == "debug"
    assert answered["address"] == "192.0.2.7"
    assert answered.keys() == refused.keys() - {"code", "reason"}


@pytest.mark.parametrize(
    ("fault", "claims", "told"),
    [
        ("", {"aud": "https://github.com/octo-org"}, True),
        ("expired", {}, True),
        ("", {"jti": None}, True),
        ("bad-signature", {}, False),
        ("unknown-kid", {}, False),
    ],
)
def test_a_rejected_token_is_somebodys_once_its_signature_is_verified(provider, logged, fault, claims, told):
    """The repository is logged only once the signature is verified, so that a stranger cannot forge it."""
    answer = provider.exchange(provider.github_token(fault=fault, **claims))

    (line,) = logged
    assert (answer.status_code, line["code"]) == (401, "INVALID_OIDC_TOKEN")
    run = {name: line[name] for name in ("repository", "repositoryId", "runId") if name in line}
    assert set(run) == ({"repository", "repositoryId", "runId"} if told else set())
    assert run.get("repository") == (provider.repository if told else None)
    assert told or provider.repository not in str(line)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_probes_are_logged_at_debug(provider, logged, path):
    """Probes arrive every few seconds; at info they would be most of the log."""
    provider.http.get(path)
    provider.http.get("/.well-known/jwks.json")

    assert [(line["route"], line["log_level"]) for line in logged] == [
        (path, "debug"),
        ("/.well-known/jwks.json", "info"),
    ]


def test_a_failure_of_ours_is_an_error(provider, logged, monkeypatch):
    """An unexpected error has a line with its cause and one for the request, both with the request's id."""

    def fail(*_):
        raise RuntimeError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(provider.store, "read", fail)
        answer = provider.http.get("/.well-known/jwks.json")

    cause, refused = logged

    assert answer.status_code == 500
    assert {cause["requestId"], refused["requestId"]} == {answer.headers["X-Request-Id"]}
    assert (refused["log_level"], refused["status"], refused["code"]) == (
        "error",
        500,
        "INTERNAL_SERVER_ERROR",
    )
    assert str(cause["exc_info"]) == "a defect"


def test_nothing_that_a_client_wrote_is_a_method_or_a_route(provider, logged):
    """A token sent as a method or in a path does not reach the log."""
    provider.http.get("/eyJsecret")
    provider.http.open("/health", method="EYJSECRET")

    text = json.dumps(logged)

    assert [(line["method"], line["route"]) for line in logged] == [("GET", None), ("other", None)]
    assert "secret" not in text.lower()
