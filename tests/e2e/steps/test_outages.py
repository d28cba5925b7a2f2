"""Steps whose provider or GitHub is down, slow or hostile."""

import pytest

from kit.tokens import claims_of

AGENT = "00000000-0000-4000-8000-000000000000"
EXCHANGE = "/api/v1/oidc/token"
AUDIENCE = "/api/v1/oidc/audience"
BUSY = (503, {"code": "SERVICE_UNAVAILABLE", "message": "The database cannot be reached; try again."})


@pytest.mark.parametrize(("choice", "exit_code", "level"), [("skip", 0, "warning"), ("fail", 1, "error")])
def test_a_provider_that_is_down_skips_or_fails_as_asked(choice, exit_code, level, nobody, run_action):
    """`on-unavailable` decides the exit code; the outputs are the same in both cases."""
    run = run_action(
        "issue-token", {"api-url": nobody, "agent-id": AGENT, "on-unavailable": choice, "timeout": "2"}
    )

    assert run.exit_code == exit_code
    assert run.only_annotation()["level"] == level
    assert run.outputs["authenticated"] == "false"
    assert run.outputs["error-code"] == "PROVIDER_UNREACHABLE"
    assert run.outputs["retryable"] == "true"
    assert "access-token" not in run.outputs


def test_a_refusal_is_never_skipped(provider, trusted_agent, run_action):
    """`on-unavailable: skip` does not skip a refusal."""
    run = run_action(
        "issue-token", {"agent-id": trusted_agent, "on-unavailable": "skip"}, ref="refs/heads/feature"
    )

    assert run.exit_code == 1
    assert run.only_annotation()["level"] == "error"
    assert run.outputs["error-code"] == "BRANCH_NOT_PERMITTED"


def test_a_hiccup_of_github_is_waited_out(github, repository, trusted_agent, run_action):
    """Two 503 responses from the ID-token endpoint delay the step but do not fail it."""
    github.plan_fault("token", status=503, times=2)

    run = run_action("issue-token", {"agent-id": trusted_agent})

    assert run.outcome == "success"
    assert run.annotations == []
    assert [request["status"] for request in github.id_token_requests(repository)] == [503, 503, 200]


def test_github_that_stays_down_is_told_apart_from_a_missing_permission(github, trusted_agent, run_action):
    """An ID-token endpoint that keeps failing is retryable, can be skipped and is not blamed on `permissions`."""
    github.plan_fault("token", status=503)

    run = run_action("issue-token", {"agent-id": trusted_agent, "on-unavailable": "skip", "timeout": "2"})

    assert run.exit_code == 0
    warning = run.only_annotation()
    assert warning["level"] == "warning"
    assert "503" in warning["message"]
    assert "permissions" not in warning["message"]
    assert run.outputs["error-code"] == "ID_TOKEN_UNAVAILABLE"
    assert run.outputs["authenticated"] == "false"


def test_each_try_of_the_exchange_has_an_id_token_of_its_own(stranger, run_action):
    """A retry of the exchange sends a new ID token, because the first may already be used."""
    stranger.answer(EXCHANGE, BUSY, (403, {"code": "TRUST_POLICY_VIOLATION", "message": "No."}))

    run_action("issue-token", {"api-url": stranger.url, "agent-id": AGENT})

    first, second = (claims_of(body["token"])["jti"] for body in stranger.bodies(EXCHANGE))
    assert first != second


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"audience": "sts.amazonaws.com"}),
        (200, {"audience": "api://AzureADTokenExchange"}),
        (200, {"audience": "https://idp.example.com"}),
        (200, {"audience": "http://127.0.0.1"}),
        (200, {"audience": ["http://127.0.0.1"]}),
        (200, []),
        (404, {}),
    ],
)
def test_a_hostile_provider_cannot_choose_the_audience(answer, github, repository, stranger, run_action):
    """A hostile `api-url` cannot obtain a token for a cloud: the audience falls back to its own origin."""
    stranger.answer(AUDIENCE, answer)

    run_action("issue-token", {"api-url": stranger.url, "agent-id": AGENT})

    assert [it["audience"] for it in github.id_token_requests(repository)] == [stranger.url]


def test_a_provider_may_name_a_path_of_its_own_as_audience(github, repository, stranger, run_action):
    """The provider's audience is used if it is a URL with the host and port of `api-url`."""
    stranger.answer(AUDIENCE, (200, {"audience": f"{stranger.url}/agents"}))

    run_action("issue-token", {"api-url": stranger.url, "agent-id": AGENT})

    assert [it["audience"] for it in github.id_token_requests(repository)] == [f"{stranger.url}/agents"]


def test_the_words_of_a_hostile_provider_are_no_commands(stranger, run_action):
    """Workflow commands in a refusal are shown as text and not executed."""
    evil = "no\n::set-output name=access-token::stolen\n::stop-commands::x\n##[set-env name=PATH]/tmp"
    stranger.answer(EXCHANGE, (403, {"code": "TRUST_POLICY_VIOLATION", "message": evil}))

    run = run_action("issue-token", {"api-url": stranger.url, "agent-id": AGENT})

    assert run.exit_code == 1
    assert "access-token" not in run.outputs
    assert run.only_annotation()["title"] == "SentryAgent: TRUST_POLICY_VIOLATION"


def test_a_name_that_does_not_exist_is_told_from_an_outage(run_action):
    """With `skip`, a host name that does not resolve passes with a warning after at most three tries."""
    inputs = {"api-url": "https://idp.invalid", "agent-id": AGENT, "on-unavailable": "skip"}

    run = run_action("issue-token", inputs)

    message = run.only_annotation()["message"]
    assert (run.exit_code, run.outputs["authenticated"]) == (0, "false")
    assert "The step passes without a token (`on-unavailable: skip`)" in message
    assert len([line for line in run.log.splitlines() if line.startswith("Try ")]) <= 3
