"""The exchange as a form (RFC 8693), with errors in OAuth's format (RFC 6749)."""

import re
from urllib.parse import urlencode

import pytest

from kit.provider import EXCHANGE, FORM, NOBODY, PROVIDER
from kit.refusals import assert_oauth_refused
from mock_idp.job import Job

JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")


def form(provider, **changes):
    """A valid form with changed fields; a field that is `None` is left out."""
    members = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": changes.pop("subject_token", "") or provider.github_token(),
        "subject_token_type": JWT_TYPE,
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


def post(provider, **changes):
    return provider.http.post(EXCHANGE, data=form(provider, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:access_token"},
        {"audience": PROVIDER},
        {"scope": "agents:write"},
        {"scope": ""},
        {"resource": "", "audience": "", "requested_token_type": ""},
    ],
)
def test_form_gives_a_bootstrap_token(provider, changes):
    """The response is that of the JSON request; empty parameters count as absent (RFC 6749, 3.2)."""
    provider.policy()

    answer = post(provider, **changes)

    assert answer.status_code == 200, answer.text
    assert answer.json.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "expires_at",
        "scope",
        "issued_token_type",
    }
    assert answer.json["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")


def test_resource_names_the_agent(provider):
    """`resource` can be the agent's URN."""
    agent = provider.agent()["agentId"]
    provider.policy(agentId=agent, scopes=["agents:read", "tokens:read"])

    answer = post(provider, resource=f"urn:sentryagent:agent:{agent}", scope="tokens:read")

    assert answer.json["scope"] == "tokens:read"


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"grant_type": None}, "invalid_request", "VALIDATION_ERROR"),
        ({"grant_type": ""}, "invalid_request", "VALIDATION_ERROR"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type", "UNSUPPORTED_GRANT_TYPE"),
        ({"subject_token": None}, "invalid_request", "VALIDATION_ERROR"),
        ({"subject_token": "x"}, "invalid_request", "INVALID_OIDC_TOKEN"),
        ({"subject_token": "x" * 20_000}, "invalid_request", "INVALID_OIDC_TOKEN"),
        ({"subject_token_type": None}, "invalid_request", "VALIDATION_ERROR"),
        (
            {"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"},
            "invalid_request",
            "VALIDATION_ERROR",
        ),
        (
            {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
            "invalid_request",
            "VALIDATION_ERROR",
        ),
        ({"audience": "https://other.example.com"}, "invalid_request", "VALIDATION_ERROR"),
        ({"resource": "https://other.example.com"}, "invalid_request", "VALIDATION_ERROR"),
        ({"audience": "other"}, "invalid_target", "INVALID_TARGET"),
        ({"audience": f"urn:sentryagent:agent:{NOBODY}"}, "invalid_target", "INVALID_TARGET"),
        ({"resource": NOBODY}, "invalid_target", "INVALID_TARGET"),
        ({"resource": "urn:sentryagent:agent:x"}, "invalid_target", "INVALID_TARGET"),
        ({"resource": f"urn:sentryagent:agent:{NOBODY}"}, "invalid_target", "TRUST_POLICY_VIOLATION"),
        ({"scope": "audit:read"}, "invalid_scope", "SCOPE_NOT_PERMITTED"),
        ({"scope": 'a"b'}, "invalid_request", "VALIDATION_ERROR"),
        ({"scope": "a\x00b"}, "invalid_request", "VALIDATION_ERROR"),
        ({"scope": " "}, "invalid_request", "VALIDATION_ERROR"),
        ({"scope": "x" * 65}, "invalid_request", "VALIDATION_ERROR"),
    ],
)
def test_form_refusals(still_provider, changes, error, code):
    """Each refusal is a 400 with an OAuth error, and its description starts with our code."""
    if not still_provider.audit(action="policy.created"):
        still_provider.policy()
    token = {"subject_token": None} if changes.get("subject_token", "") is None else {}
    body = {
        **form(still_provider, **{**changes, **token}),
        **{k: v for k, v in changes.items() if v is not None},
    }
    if token:
        body.pop("subject_token")

    answer = still_provider.http.post(EXCHANGE, data=body)

    assert_oauth_refused(answer, 400, error, code)
    assert DESCRIPTION.fullmatch(answer.json["error_description"])
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"job": Job(ref="dev")}, "BRANCH_NOT_PERMITTED"),
        ({"event_name": "workflow_run"}, "TRUST_POLICY_VIOLATION"),
        ({"ref": 'refs/heads/"é\\\n'}, "BRANCH_NOT_PERMITTED"),
        ({"fault": "bad-signature"}, "INVALID_OIDC_TOKEN"),
        ({"repository_id": "1"}, "IDENTITY_CHANGED"),
    ],
)
def test_policy_refusals_are_invalid_request(provider, changes, code):
    """Text from the ID token is reduced to the characters that OAuth allows in a description."""
    provider.policy(branch="main", repositoryId=Job().repository_id)

    answer = post(provider, subject_token=provider.github_token(**changes))

    assert_oauth_refused(answer, 400, "invalid_request", code)
    assert DESCRIPTION.fullmatch(answer.json["error_description"])


@pytest.mark.parametrize("name", ["subject_token", "grant_type", "scope", "resource", "nothing"])
def test_a_parameter_is_given_once(still_provider, name):
    """A repeated parameter is refused: two parsers could read different values (B32)."""
    body = urlencode([*form(still_provider, **{name: "x"}).items(), (name, "y")])

    answer = still_provider.http.post(EXCHANGE, data=body, content_type=FORM)

    assert (
        name in assert_oauth_refused(answer, 400, "invalid_request", "VALIDATION_ERROR")["error_description"]
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"grant_type=%FF", "grant_type=é".encode(), b"&".join(b"a%d=1" % n for n in range(40))],
)
def test_malformed_form(still_provider, body):
    """A body that is not a valid form is refused."""
    assert_oauth_refused(
        still_provider.http.post(EXCHANGE, data=body, content_type=FORM),
        400,
        "invalid_request",
        "VALIDATION_ERROR",
    )


@pytest.mark.parametrize(("size", "status"), [(32 * 1024, 400), (32 * 1024 + 1, 413), (64 * 1024, 413)])
def test_form_of_32_kib_is_the_largest(still_provider, size, status):
    """A form that is too large gets a 413 in OAuth's format."""
    body = b"grant_type=" + b"x" * (size - len(b"grant_type="))

    answer = still_provider.http.post(EXCHANGE, data=body, content_type=FORM)

    assert answer.status_code == status
    assert answer.json["error"] == ("unsupported_grant_type" if status == 400 else "invalid_request")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_wrong_method_with_a_form(still_provider, method):
    """A form gets an error in OAuth's format even if the method is wrong."""
    answer = still_provider.http.open(EXCHANGE, method=method, content_type=FORM)

    assert_oauth_refused(answer, 405, "invalid_request", "METHOD_NOT_ALLOWED")
    assert "POST" in answer.headers["Allow"]


def test_temporary_troubles(provider):
    """A rate limit and an unreachable issuer are `temporarily_unavailable`, with Retry-After."""
    provider.policy()
    limited = provider.with_settings(RATE_LIMIT="1")
    assert post(limited).status_code == 200

    answers = [(429, "RATE_LIMITED", post(limited))]
    provider.keys.reachable = False
    answers.append((503, "ISSUER_UNAVAILABLE", post(provider)))

    for status, code, answer in answers:
        assert_oauth_refused(answer, status, "temporarily_unavailable", code)
        assert int(answer.headers["Retry-After"]) > 0


def test_explain_off_silences_the_form(provider):
    """With explanations off the description is a constant sentence."""
    provider.policy(branch="release-secret")

    answer = post(provider.with_settings(EXPLAIN="off"))

    assert (
        "secret"
        not in assert_oauth_refused(answer, 400, "invalid_request", "BRANCH_NOT_PERMITTED")[
            "error_description"
        ]
    )
