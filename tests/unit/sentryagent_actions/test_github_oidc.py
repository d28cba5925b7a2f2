"""Requesting an ID token, and diagnosing why a job gets none."""

import json

import pytest

from sentryagent_actions.errors import (
    IdTokenEndpointDownError,
    IdTokenEndpointError,
    IdTokenPermissionError,
    TlsError,
)
from sentryagent_actions.github_oidc import IdTokens, RequestEndpoint, check_unverified, diagnose, read_event

AUDIENCE = "https://idp.example.com"
URL = "https://run.example.com/232//idtoken/p/j"


def id_tokens(world, masks=None):
    endpoint = RequestEndpoint.from_environ(world.environ)
    masks = [] if masks is None else masks
    return IdTokens(endpoint, world.network(), AUDIENCE, masks.append, [].append)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        (f"{URL}?api-version=2.0", f"{URL}?api-version=2.0&audience=a%3A%2F%2Fb%26c"),
        (f"{URL}/?api-version=2.0&x=%2F+a", f"{URL}/?api-version=2.0&x=%2F+a&audience=a%3A%2F%2Fb%26c"),
        (URL, f"{URL}?audience=a%3A%2F%2Fb%26c"),
    ],
)
def test_audience_joins_the_query_and_changes_nothing_else(url, asked):
    """The double slash and the parameters of GitHub's URL do not change."""
    assert RequestEndpoint(url, "t").url_for("a://b&c") == asked


def test_request_is_what_github_reads(world):
    """The request is a GET with the credential as bearer and the audience in the query; the path keeps its slashes."""
    token = id_tokens(world, masks := []).fresh()
    (request,) = world.script.requests
    assert (request.method, request.authorization) == ("GET", "Bearer request-token")
    assert request.raw_path == "/232//idtoken/plan/job?api-version=2.0&audience=https%3A%2F%2Fidp.example.com"
    assert masks == [token]


@pytest.mark.parametrize("missing", ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
def test_either_variable_missing_is_diagnosed(world, missing):
    """Both variables are required, and an empty one counts as missing."""
    for environ in ({**world.environ, missing: ""}, {k: v for k, v in world.environ.items() if k != missing}):
        with pytest.raises(IdTokenPermissionError) as refusal:
            RequestEndpoint.from_environ(environ)
        assert "permissions:\n  id-token: write\n  contents: read" in refusal.value.advice()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://run.example.com/idtoken?x=1"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://user:pw@run.example.com/idtoken"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret\ninjected: header"),
    ],
)
def test_request_credential_goes_to_no_doubtful_place(world, variable, value):
    """A URL without https, or a credential that cannot be in a header, is refused and not shown."""
    with pytest.raises(IdTokenPermissionError) as refusal:
        RequestEndpoint.from_environ({**world.environ, variable: value})
    assert variable in str(refusal.value)
    assert "secret" not in refusal.value.advice()


def test_loopback_endpoint_may_be_http(world):
    """On loopback, http is allowed for a mock of GitHub."""
    url = "http://127.0.0.1:3001/1//idtoken/p/j?api-version=2.0"
    assert RequestEndpoint.from_environ({**world.environ, "ACTIONS_ID_TOKEN_REQUEST_URL": url}).url == url


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_busy_endpoint_is_worth_another_try(world, status):
    """Overload and server errors are retryable, and `Retry-After` is respected."""
    world.script.on("ID-TOKEN", world.answer(status=status, text="busy", headers={"Retry-After": "3"}))
    with pytest.raises(IdTokenEndpointDownError) as failure:
        id_tokens(world).fresh()
    assert (failure.value.http_status, failure.value.retry_after) == (status, 3.0)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "must not contain github.com"),
        (401, "Run the job again"),
        (403, "id-token: write"),
        (404, "must come from the runner"),
    ],
)
def test_refusal_of_the_endpoint_names_its_remedy(world, status, remedy):
    """A refusal is final, and the advice depends on its status."""
    world.script.on("ID-TOKEN", world.answer(status=status, text="no"))
    with pytest.raises(IdTokenEndpointError) as failure:
        id_tokens(world).fresh()
    assert not failure.value.retryable
    assert remedy in failure.value.advice()


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "<html>"},
        {"json": {"count": 3}},
        {"json": {"value": None}},
        {"json": {"value": "e"}},
        {"json": {"value": "aaaaaaaaaaaa.bbbbbbbbbbbb.cc.dd"}},
        {"json": {"value": "aaaaaaaaaaaa.bbbbbbbbbbbb.cc\n"}},
    ],
)
def test_what_is_no_token_is_never_masked(world, answer):
    """A response without a JWT is refused before it is masked, because the mask could hide the whole log."""
    world.script.on("ID-TOKEN", world.answer(**answer))
    masks = []
    with pytest.raises(IdTokenEndpointError, match="without an ID token"):
        id_tokens(world, masks).fresh()
    assert masks == []


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"aud": "https://evil.example"}, "audience other than"),
        ({"aud": [AUDIENCE]}, "audience other than"),
        ({"aud": None}, "audience other than"),
        ({"exp": None}, "without an ID token"),
        ({"exp": "later"}, "without an ID token"),
        ({"exp": True}, "without an ID token"),
        ({"iss": None}, "without an ID token"),
        ({"iss": 7}, "without an ID token"),
        ({"iss": "github"}, "without an ID token"),
        ({"iss": "http://token.actions.example.com"}, "without an ID token"),
    ],
)
def test_id_token_is_looked_at_before_it_is_sent(world, claims, problem):
    """A token with another audience, or without the claims of an ID token, means a wrong endpoint."""
    good = {"iss": world.issuer, "aud": AUDIENCE, "exp": 1060}
    token = world.make_jwt(good | claims)
    with pytest.raises(IdTokenEndpointError, match=problem) as failure:
        check_unverified(token, AUDIENCE)
    assert token not in failure.value.advice()
    assert "If you set ACTIONS_ID_TOKEN_REQUEST_URL yourself, remove it" in failure.value.advice()


@pytest.mark.parametrize("payload", ["W10", "bnVsbA", "e30", "!!!!", "_w"])
def test_payload_that_is_no_claims_is_no_id_token(payload):
    """A payload that is not a JSON object of claims is refused."""
    with pytest.raises(IdTokenEndpointError, match="without an ID token"):
        check_unverified(f"e30.{payload}.c2ln", AUDIENCE)


@pytest.mark.parametrize(
    "issuer", ["https://token.actions.githubusercontent.com/octo", "http://127.0.0.1:3001"]
)
def test_good_id_token_passes_and_tells_its_claims(world, issuer):
    """A token for the audience is accepted from any issuer, and its claims are returned."""
    token = world.make_jwt({"iss": issuer, "aud": AUDIENCE, "exp": 1001})
    assert check_unverified(token, AUDIENCE) == {"iss": issuer, "aud": AUDIENCE, "exp": 1001, "jti": "0"}


@pytest.mark.parametrize(
    "end",
    [-1, 253402300800, int("9" * 400), int("9" * 4000), -int("9" * 400), 1001.0, True, None, "1001", 1e308],
    ids=lambda end: str(end)[:12],
)
def test_end_that_is_no_time_is_no_id_token(world, end):
    """An `exp` outside the calendar is refused, because arithmetic with it would overflow."""
    world.script.on("ID-TOKEN", world.id_token(exp=end))
    with pytest.raises(IdTokenEndpointError, match="without an ID token"):
        id_tokens(world).fresh()


@pytest.mark.parametrize("end", [0, 253402300799])
def test_first_and_last_end(world, end):
    """The first and last second of the calendar are accepted."""
    world.script.on("ID-TOKEN", world.id_token(exp=end))
    assert id_tokens(world).fresh()


@pytest.mark.parametrize(("length", "fits"), [(16 * 1024, True), (16 * 1024 + 1, False)])
def test_id_token_has_at_most_16_kib(world, length, fits):
    """A token longer than 16 KiB is refused."""
    token = world.id_token().json["value"]
    token += "x" * (length - len(token))
    world.script.on("ID-TOKEN", world.answer(json={"value": token}))
    if fits:
        assert id_tokens(world).fresh() == token
    else:
        with pytest.raises(IdTokenEndpointError, match="more than 16384 characters"):
            id_tokens(world).fresh()


def test_proxy_that_refuses_githubs_endpoint_is_final(world):
    """A proxy that blocks GitHub's host is not an outage of GitHub and is not retried."""
    world.script.on("ID-TOKEN", world.answer(error=__import__("httpx").ProxyError("403 Forbidden")))
    with pytest.raises(IdTokenEndpointError, match="the proxy responded with 403") as failure:
        id_tokens(world).fresh()
    assert not failure.value.retryable
    assert "actions.githubusercontent.com" in failure.value.advice()


def test_distrusted_certificate_and_redirect_are_final(world):
    """An untrusted certificate and a redirect are not retried."""
    ssl_error = __import__("ssl").SSLCertVerificationError("self-signed certificate")
    error = __import__("httpx").ConnectError("tls")
    error.__cause__ = ssl_error
    world.script.on(
        "ID-TOKEN",
        world.answer(error=error),
        world.answer(status=302, headers={"location": "https://x.example"}),
    )
    with pytest.raises(TlsError, match="self-signed"):
        id_tokens(world).fresh()
    with pytest.raises(IdTokenEndpointError, match="redirect"):
        id_tokens(world).fresh()


FORK = {"pull_request": {"head": {"repo": {"full_name": "me/fork"}}, "base": {"repo": {"full_name": "o/r"}}}}
OWN = {"pull_request": {"head": {"repo": {"full_name": "o/r"}}, "base": {"repo": {"full_name": "o/r"}}}}
GONE = {"pull_request": {"head": {"repo": None}, "base": {"repo": {"full_name": "o/r"}}}}


@pytest.mark.parametrize(
    ("facts", "event", "cause", "remedy"),
    [
        ({}, {}, "no `id-token: write` permission", "id-token: write\n  contents: read"),
        ({"ACT": "true"}, {}, "act and other local runners", "mock-idp env --format act"),
        ({"GITHUB_ACTIONS": ""}, {}, "act and other local runners", "mock-idp serve"),
        ({"GITHUB_EVENT_NAME": "pull_request"}, FORK, "pull requests from forks", "head.repo.full_name"),
        (
            {"GITHUB_EVENT_NAME": "pull_request_review"},
            FORK,
            "pull requests from forks",
            "head.repo.full_name",
        ),
        ({"GITHUB_EVENT_NAME": "pull_request"}, GONE, "pull requests from forks", "head.repo.full_name"),
        ({"GITHUB_EVENT_NAME": "pull_request"}, OWN, "no `id-token: write` permission", "id-token: write"),
        (
            {"GITHUB_EVENT_NAME": "pull_request"},
            {"pull_request": 7},
            "no `id-token: write` permission",
            "id-token: write",
        ),
        (
            {"GITHUB_EVENT_NAME": "pull_request_target"},
            FORK,
            "no `id-token: write` permission",
            "id-token: write",
        ),
        (
            {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_ACTOR": "dependabot[bot]"},
            OWN,
            "A run that Dependabot starts has only the permissions that `permissions` lists.",
            "permissions:\n  id-token: write",
        ),
        (
            {"GITHUB_EVENT_NAME": "push", "GITHUB_ACTOR": "dependabot[bot]"},
            {},
            "A run that Dependabot starts has only the permissions that `permissions` lists.",
            "permissions:\n  id-token: write",
        ),
        (
            {"GITHUB_EVENT_NAME": "schedule", "GITHUB_ACTOR": "dependabot[bot]"},
            {},
            "does not issue it an ID token.",
            "permissions:\n  id-token: write",
        ),
        (
            {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_ACTOR": "dependabot[bot]"},
            FORK,
            "pull requests from forks",
            "head.repo.full_name",
        ),
        (
            {"GITHUB_EVENT_NAME": "pull_request"},
            FORK | {"repository": {"private": True}},
            "unless the repository's Actions settings send write tokens",
            "head.repo.full_name",
        ),
        ({}, {}, "no `id-token: write` permission", "A job that calls a reusable workflow needs it too."),
        (
            {"GITHUB_SERVER_URL": "https://ghes.example.com"},
            {},
            "GitHub Enterprise Server",
            "id-token: write",
        ),
        (
            {"GITHUB_SERVER_URL": "https://octo.ghe.com"},
            {},
            "no `id-token: write` permission",
            "id-token: write",
        ),
    ],
)
def test_missing_id_token_is_diagnosed_by_cause(facts, event, cause, remedy):
    """Each reason for a missing ID token has its own message and remedy."""
    error = diagnose({"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "push"} | facts, event)
    assert cause in str(error)
    assert remedy in error.advice()
    assert error.code == "ID_TOKEN_UNAVAILABLE"


@pytest.mark.parametrize("content", [None, "", "[]", "{", "[" * 100_000])
def test_event_that_cannot_be_read_is_empty(tmp_path, content):
    """A missing or broken event file does not hide the real diagnosis."""
    path = tmp_path / "event.json"
    if content is not None:
        path.write_text(content)
    assert read_event({"GITHUB_EVENT_PATH": str(path)}) == {}
    assert read_event({}) == {}


def test_event_is_read_from_its_file(world, tmp_path):
    """The event payload of the runner tells that a run is from a fork."""
    path = tmp_path / "event.json"
    path.write_text(json.dumps(FORK))
    facts = {
        "GITHUB_EVENT_PATH": str(path),
        "GITHUB_EVENT_NAME": "pull_request",
        "ACTIONS_ID_TOKEN_REQUEST_URL": "",
    }
    world.environ |= facts
    outcome = world.run("issue-token", agent_id=world.agent_id)
    assert outcome.outputs["error-code"] == "ID_TOKEN_UNAVAILABLE"
    assert "from forks" in outcome.stdout
    assert world.script.requests == []
