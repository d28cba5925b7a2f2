"""Generated requests: whatever a client sends, the response is never a 5xx and has one of our formats."""

import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.provider import AGENTS, FORM, NOBODY, POLICIES, SERVICES
from sentryagent_idp.api import agents, models, services

TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "",
            "\x00",
            "main",
            "refs/heads/main",
            "a/b",
            "octo-org/hello-agent",
            "a@b.example",
            "1.0.0",
            "a:b",
            "**",
            "agents:read",
            "github",
            NOBODY,
            "2027-01-01T00:00:00Z",
            "0001-01-01T00:00:00+23:59",
            "\u202e",
            "x" * 2000,
        ]
    ),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**30), max_value=10**30),
    st.floats(),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)

JSON_ENDPOINTS = [
    ("POST", "/api/v1/oidc/token", models.ExchangeBody, {"token": "x"}),
    ("POST", POLICIES, models.PolicyBody, {"repository": "octo-org/hello-agent"}),
    ("PUT", f"{POLICIES}/POLICY", models.StoredPolicyBody, {"repository": "octo-org/hello-agent"}),
    (
        "POST",
        f"{POLICIES}/simulate",
        models.SimulationBody,
        {"claims": {"repository": "octo-org/hello-agent"}},
    ),
    (
        "POST",
        SERVICES,
        services.NewService,
        {"identifier": "https://deploy.example.com", "scopes": [{"name": "x"}]},
    ),
    ("PUT", f"{SERVICES}/{NOBODY}", services.StoredServiceBody, {"scopes": [{"name": "x"}]}),
    ("POST", AGENTS, agents.NewAgent, {"email": "a@b.example"}),
    ("PATCH", f"{AGENTS}/AGENT", agents.AgentChanges, {}),
    ("POST", f"{AGENTS}/AGENT/credentials", agents.NewCredential, {}),
]
FORM_ENDPOINTS = [
    ("/api/v1/oidc/token", ["scope", "resource", "audience", "requested_token_type", "subject_token"]),
    ("/api/v1/token", ["grant_type", "client_id", "client_secret", "scope"]),
    ("/api/v1/token/introspect", ["token", "token_type_hint"]),
    ("/api/v1/token/revoke", ["token", "client_id", "client_secret"]),
]
LISTS = [
    (POLICIES, ["page", "limit", "provider", "repository", "agentId", "service"]),
    (SERVICES, ["page", "limit", "identifier"]),
    (AGENTS, ["page", "limit", "owner", "agentType", "status", "email"]),
    (
        "/api/v1/audit",
        ["page", "limit", "action", "outcome", "actor", "from", "to", "after", "policyVersion"],
    ),
]
GOOD_FORM = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
}

generated = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@pytest.fixture(scope="module")
def assert_in_shape(still_provider):
    """Sends a request to a provider with a policy, an agent and no rate limit, and checks the response."""
    provider = still_provider.with_settings(RATE_LIMIT="0")
    ids = {"POLICY": provider.policy()["id"], "AGENT": provider.agent()["agentId"]}

    def send(method, path, **request):
        for name, value in ids.items():
            path = path.replace(name, value)
        answer = provider.http.open(path, method=method, **request)
        assert answer.status_code < 500, (method, path, request, answer.text)
        if answer.status_code >= 400:
            assert {"code", "message", "details", "requestId"} == answer.json.keys() or {
                "error",
                "error_description",
            } == answer.json.keys()
        return answer

    send.admin = provider.admin
    return send


def _names(model):
    return [field.alias for field in model.model_fields.values()]


@pytest.mark.parametrize(("method", "path", "model", "good"), JSON_ENDPOINTS)
def test_generated_json(assert_in_shape, method, path, model, good):
    """Known fields with any value, unknown fields, and valid bodies with one wrong field."""

    @generated
    @given(
        known=st.dictionaries(st.sampled_from(_names(model)), VALUES, max_size=3),
        unknown=st.dictionaries(TEXTS, VALUES, max_size=1),
        ensure_ascii=st.booleans(),
    )
    def sweep(known, unknown, ensure_ascii):
        body = {**good, **known, **unknown}
        data = json.dumps(body, ensure_ascii=ensure_ascii).encode("utf-8", "surrogatepass")
        assert_in_shape(
            method, path, data=data, content_type="application/json", headers=assert_in_shape.admin
        )

    sweep()


@pytest.mark.parametrize(("method", "path", "model", "good"), JSON_ENDPOINTS)
def test_generated_bytes(assert_in_shape, method, path, model, good):
    """Any bytes, alone and inside a string of a known field."""

    @generated
    @given(data=st.binary(max_size=60), inside=st.booleans())
    def sweep(data, inside):
        body = b'{"%s": "%s"}' % (_names(model)[0].encode(), data) if inside else data
        assert_in_shape(
            method, path, data=body, content_type="application/json", headers=assert_in_shape.admin
        )

    sweep()


@pytest.mark.parametrize(("path", "members"), FORM_ENDPOINTS)
def test_generated_forms(assert_in_shape, path, members):
    """Any parameters, including repeated and unknown ones, in any bytes."""

    @generated
    @given(
        pairs=st.lists(st.tuples(st.sampled_from(members) | TEXTS, TEXTS), max_size=5),
        raw=st.binary(max_size=20),
        good=st.booleans(),
    )
    def sweep(pairs, raw, good):
        given_pairs = [*(GOOD_FORM.items() if good else ()), *pairs]
        data = "&".join(f"{quote(name)}={quote(value)}" for name, value in given_pairs).encode() + raw
        assert_in_shape("POST", path, data=data, content_type=FORM, headers=assert_in_shape.admin)

    sweep()


@pytest.mark.parametrize(("path", "names"), LISTS)
def test_generated_queries(assert_in_shape, path, names):
    """Any query, including bytes that are not text."""

    @generated
    @given(
        pairs=st.lists(st.tuples(st.sampled_from(names) | TEXTS, TEXTS | st.integers().map(str)), max_size=3),
        raw=st.binary(max_size=4),
    )
    def sweep(pairs, raw):
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
        assert_in_shape("GET", f"{path}?{query}{quote(raw)}", headers=assert_in_shape.admin)

    sweep()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/oidc/token"),
        ("PUT", f"{POLICIES}/POLICY"),
        ("GET", AGENTS),
        ("POST", "/api/v1/token"),
        ("POST", "/api/v1/token/revoke"),
        ("GET", "/ready"),
    ],
)
def test_generated_headers(assert_in_shape, method, path):
    """Any values in the headers that the provider reads."""
    text = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=40)
    schemes = st.sampled_from(["", "Bearer ", "bearer ", "Basic ", "Basic OjphOg==", "Bearer a.b.c"])

    @generated
    @given(
        authorization=st.builds("{}{}".format, schemes, text),
        if_match=text | st.integers().map(lambda number: f'"{number}"'),
        content_type=text | st.sampled_from(["application/json", FORM, "application/json; charset=x"]),
        forwarded=text,
        keep=st.booleans(),
    )
    def sweep(authorization, if_match, content_type, forwarded, keep):
        headers = {
            "Authorization": assert_in_shape.admin["Authorization"] if keep else authorization,
            "If-Match": if_match,
            "X-Forwarded-For": forwarded,
            "X-Request-Id": forwarded,
        }
        assert_in_shape(method, path, data=b"{}", content_type=content_type, headers=headers)

    sweep()


@generated
@given(
    segment=st.text(min_size=1, max_size=20),
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
)
def test_generated_paths(assert_in_shape, segment, method):
    """Any text in place of an id in a path."""
    one = quote(segment, safe="")
    for path in (f"{POLICIES}/{one}", f"{AGENTS}/{one}/credentials/{one}", f"/{one}", f"/api/v1/token/{one}"):
        assert_in_shape(method, path, json={}, headers=assert_in_shape.admin)
