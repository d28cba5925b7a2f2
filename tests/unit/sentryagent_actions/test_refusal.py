"""Parsing the provider's refusals."""

import json

import pytest

from sentryagent_actions.errors import InvalidResponseError, ProviderUnreachableError
from sentryagent_actions.network import Reply
from sentryagent_actions.origin import Origin
from sentryagent_actions.refusal import read_refusal, read_request_id
from sentryagent_actions.refused import (
    AgentExistsError,
    IdTokenRejectedError,
    PolicyRefusedError,
    ProviderOverloadedError,
    RefusedError,
)

API_URL = Origin.of("https://idp.example.com")
EXPLANATION = {
    "claims": {"ref": "refs/heads/feature", "event_name": "push"},
    "nearestPolicies": [
        {
            "id": "p-1",
            "matched": ["repository"],
            "failed": [
                {"condition": "branch", "expected": "main", "actual": "feature", "hint": "Push to main."}
            ],
        }
    ],
    "suggestedPolicy": {"repository": "octo-org/octo-repo", "branch": "it's"},
}


def refuse(status, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_refusal(Reply(status, {"x-request-id": "req-1"} | headers, content), API_URL, 0.0)


def problem(code, **details):
    return {"code": code, "message": "No.", "details": details, "requestId": "req-1"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "retryable"),
    [
        (400, problem("VALIDATION_ERROR"), RefusedError, "VALIDATION_ERROR", False),
        (401, problem("UNAUTHORIZED"), RefusedError, "UNAUTHORIZED", False),
        (
            401,
            problem("INVALID_OIDC_TOKEN", reason="expired"),
            IdTokenRejectedError,
            "INVALID_OIDC_TOKEN",
            False,
        ),
        (403, problem("TRUST_POLICY_VIOLATION"), PolicyRefusedError, "TRUST_POLICY_VIOLATION", False),
        (403, problem("BRANCH_NOT_PERMITTED"), PolicyRefusedError, "BRANCH_NOT_PERMITTED", False),
        (403, problem("IDENTITY_CHANGED"), PolicyRefusedError, "IDENTITY_CHANGED", False),
        (409, problem("AGENT_ALREADY_EXISTS"), AgentExistsError, "AGENT_ALREADY_EXISTS", False),
        (429, problem("RATE_LIMITED"), ProviderOverloadedError, "RATE_LIMITED", True),
        (503, problem("ISSUER_UNAVAILABLE"), ProviderOverloadedError, "ISSUER_UNAVAILABLE", True),
        (403, {"error": "invalid_token", "error_description": "x"}, RefusedError, "INVALID_TOKEN", False),
        (502, b"<html>Bad Gateway</html>", ProviderUnreachableError, "PROVIDER_UNREACHABLE", True),
        (404, b"<html>Not Found</html>", InvalidResponseError, "INVALID_RESPONSE", False),
        (400, {"code": "x\n::add-mask::e"}, InvalidResponseError, "INVALID_RESPONSE", False),
        (400, {"code": 7, "error": ["x"]}, InvalidResponseError, "INVALID_RESPONSE", False),
        (403, {"code": "FORBIDDEN", "details": "no object"}, RefusedError, "FORBIDDEN", False),
        (
            403,
            {"code": "TRUST_POLICY_VIOLATION", "details": {"nearestPolicies": [1], "claims": 2}},
            PolicyRefusedError,
            "TRUST_POLICY_VIOLATION",
            False,
        ),
    ],
)
def test_answer_becomes_the_error_of_its_remedy(status, body, kind, code, retryable):
    """Each refusal becomes the error class with its remedy; responses in another format are not trusted."""
    error = refuse(status, body)
    assert type(error) is kind
    assert (error.code, error.retryable, error.http_status) == (code, retryable, status)
    assert error.advice()


def test_overloaded_provider_names_its_wait():
    """An overload error has the provider's `Retry-After`."""
    assert refuse(503, problem("SERVICE_UNAVAILABLE"), **{"retry-after": "9"}).retry_after == 9.0


def test_policy_refusal_explains_expected_against_actual():
    """The error shows each unmet condition, the claims, and a command that allows the run."""
    error = refuse(403, problem("BRANCH_NOT_PERMITTED", **EXPLANATION))
    advice = error.advice()
    assert advice.splitlines()[0] == (
        "BRANCH_NOT_PERMITTED from https://idp.example.com: No (branch: expected main, actual feature)."
    )
    assert "Push to main. If this run should be allowed, ask an admin to create this policy:" in advice
    assert ("Policy p-1", "branch: expected main, actual feature. Push to main.") in error.rows()
    assert "Request id: req-1" in advice
    assert ("Claim ref", "refs/heads/feature") in error.rows()
    assert error.command() in advice
    assert (
        "curl --fail-with-body -sS -X POST https://idp.example.com/api/v1/oidc/trust-policies"
        in error.command()
    )


def test_suggested_policy_cannot_break_out_of_its_quotes():
    """The command is meant for a shell: the policy stays one quoted word."""
    import shlex

    command = refuse(403, problem("BRANCH_NOT_PERMITTED", **EXPLANATION)).command()
    assert json.loads(shlex.split(command)[-1]) == EXPLANATION["suggestedPolicy"]


def test_long_policy_is_left_to_the_summary():
    """A command too long for an annotation is shown only in the summary."""
    error = refuse(403, problem("TRUST_POLICY_VIOLATION", suggestedPolicy={"description": "x" * 3000}))
    assert "curl" not in error.advice()
    assert "step summary" in error.advice()
    assert "curl" in error.command()


@pytest.mark.parametrize(
    ("code", "details", "remedy"),
    [
        (
            "TRUST_POLICY_VIOLATION",
            {"suggestedPolicy": None},
            "the audit log records it under the request id",
        ),
        ("TRUST_POLICY_VIOLATION", {"claims": {"ref": "refs/heads/main"}}, "whether that agent is active"),
        ("IDENTITY_CHANGED", {}, "PUT the trust policy"),
        ("VALIDATION_ERROR", {"field": "agentType", "reason": "unknown"}, "Input `agent-type`: unknown."),
        (
            "VALIDATION_ERROR",
            {"field": "token", "reason": "too long"},
            "The field token of the request: too long.",
        ),
        (
            "VALIDATION_ERROR",
            {"field": "capabilities.0", "reason": "No."},
            "Input `capabilities`: No.\n",
        ),
        ("SCOPE_NOT_PERMITTED", {"permitted": ["agents:read", "tokens:read"]}, "agents:read tokens:read"),
        ("SCOPE_NOT_PERMITTED", {"permitted": "agents:read"}, "agents:read"),
        ("FORBIDDEN", {"requiredScope": "agents:write"}, "scope agents:write"),
        ("FORBIDDEN", {}, "which scopes"),
        (
            "INVALID_OIDC_TOKEN",
            {"reason": "wrong_audience", "expectedAudience": "https://idp"},
            "\naudience: https://idp\n",
        ),
        ("INVALID_OIDC_TOKEN", {"reason": "wrong_issuer"}, "SENTRYAGENT_GITHUB_ISSUER"),
        ("INVALID_OIDC_TOKEN", {"reason": "too_old"}, "synchronise the provider's clock"),
        ("AGENT_ALREADY_EXISTS", {}, "choose another `agent-name`"),
    ],
)
def test_refusal_names_its_remedy(code, details, remedy):
    """The advice says what the user can do."""
    assert remedy in refuse(403, problem(code, **details)).advice()


TRUSTED = ["https://token.actions.githubusercontent.com", "https://ghes.example.com/_services/token"]


def test_wrong_issuer_has_the_setting_to_paste():
    """The advice has the operator's complete setting: the known issuers and the token's."""
    details = {
        "reason": "wrong_issuer",
        "issuer": "https://token.actions.acme.ghe.com",
        "expectedIssuers": TRUSTED,
    }
    advice = refuse(401, problem("INVALID_OIDC_TOKEN", **details)).advice()
    assert (
        "must add https://token.actions.acme.ghe.com to SENTRYAGENT_GITHUB_ISSUER:\n"
        "SENTRYAGENT_GITHUB_ISSUER=https://token.actions.githubusercontent.com,"
        "https://ghes.example.com/_services/token,https://token.actions.acme.ghe.com\n"
    ) in advice


@pytest.mark.parametrize(
    ("issuer", "trusted"),
    [
        ("https://ghe.example/$(id)", TRUSTED),
        ("https://ghe.example;id", TRUSTED),
        ("https://ghe.example,https://evil.example", TRUSTED),
        ("https://" + "a" * 99 + "…", TRUSTED),
        ("\n", TRUSTED),
        (["https://ghe.example"], TRUSTED),
        (None, TRUSTED),
        ("https://ghe.example", ["https://a.example`id`"]),
        ("https://ghe.example", [{"a": 1}]),
        ("https://ghe.example", "https://a.example"),
        ("https://ghe.example", [f"https://a{it}.example/{'x' * 80}" for it in range(30)]),
    ],
)
def test_issuers_that_are_more_than_urls_are_not_pasted(issuer, trusted):
    """A line for a shell contains only plain URLs and fits an annotation."""
    details = {"reason": "wrong_issuer", "issuer": issuer, "expectedIssuers": trusted}
    refusal = refuse(401, problem("INVALID_OIDC_TOKEN", **details))
    assert refusal.paste == ""
    assert "SENTRYAGENT_GITHUB_ISSUER." in refusal.advice()


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [
        ("not_yet_valid", 1.0),
        ("unknown_key", 35.0),
        ("expired", 0.0),
        ("too_old", 0.0),
        ("bad_signature", 0.0),
        ("wrong_issuer", 0.0),
        ("", 0.0),
    ],
)
def test_what_passes_by_waiting_is_worth_a_second_try(reason, seconds):
    """A slow clock catches up, and a key just published by GitHub is known within 35 s."""
    refusal = refuse(401, problem("INVALID_OIDC_TOKEN", reason=reason))
    assert (refusal.retry_once_after, refusal.retryable) == (seconds, False)


def test_hostile_text_is_one_short_line():
    """The provider's text is shortened to one line and contains no tokens."""
    text = "x\n::add-mask::e eyJhbGciOi.eyJzdWIi.c2ln " + "y" * 9000
    error = refuse(403, {"code": "FORBIDDEN", "message": text})
    assert "\n" not in str(error)
    assert "eyJ" not in str(error)
    assert len(str(error)) <= 501


@pytest.mark.parametrize(("value", "read"), [("0b7c-1", "0b7c-1"), ("a b", ""), ("x" * 65, ""), ("", "")])
def test_request_id_is_an_id(value, read):
    """A request id with unexpected characters or length is dropped."""
    assert read_request_id(Reply(200, {"x-request-id": value}, b"")) == read


@pytest.mark.parametrize(
    ("header", "field", "read"),
    [("req-1", "req-2", "req-1"), ("", "req-2", "req-2"), ("", "a b", ""), ("", 7, "")],
)
def test_request_id_is_that_of_the_body_if_a_proxy_removed_the_header(header, field, read):
    """The operator finds the request by it."""
    body = {**problem("FORBIDDEN"), "requestId": field}
    assert refuse(403, body, **{"x-request-id": header}).request_id == read


@pytest.mark.parametrize(
    ("suggested", "told"),
    [
        ({"agentId": "a"}, " (the repository's policies are for other agents, or for registering one)."),
        ({"branch": "main"}, " (the repository's policies are for agents, and none for registering one)."),
        (None, "."),
    ],
)
def test_policies_for_others_only_are_told(suggested, told):
    """No condition of such a policy explains the refusal, unless the agent itself is the cause."""
    failed = [{"condition": "agentId", "expected": "b", "actual": "a", "hint": ""}]
    explanation = {
        "claims": {},
        "nearestPolicies": [{"id": "p-1", "matched": [], "failed": failed}],
        "suggestedPolicy": suggested,
    }
    assert str(refuse(403, problem("TRUST_POLICY_VIOLATION", **explanation))) == f"No{told}"
