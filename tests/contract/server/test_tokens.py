"""`/token`, introspection and revocation."""

import pytest

from kit.provider import FORM, INTROSPECT, NOBODY, PROVIDER, REVOKE, TOKEN, good, grant_form
from kit.refusals import assert_oauth_refused
from kit.tokens import basic, bearer, claims_of, token_of


def introspect(provider, token):
    return good(provider.post(INTROSPECT, data={"token": token}))


# --- POST /token


@pytest.mark.parametrize("by", ["form", "basic", "both"])
def test_client_credentials(provider, client, by):
    """An agent's secret gets a token for `agents:read` on itself, by HTTP Basic or in the form (RFC 6749, 4.4)."""
    agent, secret = client
    headers = {} if by == "form" else basic(agent, secret)
    body = (
        grant_form(*client) if by == "form" else {"grant_type": "client_credentials", "scope": "agents:read"}
    )
    body |= {"client_id": agent} if by == "both" else {}

    answer = provider.http.post(TOKEN, data=body, headers=headers)

    assert answer.status_code == 200, answer.text
    assert answer.json | {"access_token": ""} == {
        "access_token": "",
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "agents:read",
    }
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    claims = claims_of(answer.json["access_token"])
    assert claims["sub"] == claims["client_id"] == agent
    own = provider.http.get("/api/v1/agents", headers=bearer(answer.json["access_token"])).json
    assert [it["agentId"] for it in own["data"]] == [agent]


@pytest.mark.parametrize(
    ("changes", "status", "error", "code"),
    [
        ({"grant_type": None}, 400, "invalid_request", "VALIDATION_ERROR"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", "UNSUPPORTED_GRANT_TYPE"),
        ({"client_id": None}, 401, "invalid_client", "INVALID_CLIENT"),
        ({"client_id": NOBODY}, 401, "invalid_client", "INVALID_CLIENT"),
        ({"client_id": "x"}, 401, "invalid_client", "INVALID_CLIENT"),
        ({"client_id": "a\x00"}, 401, "invalid_client", "INVALID_CLIENT"),
        ({"client_secret": None}, 401, "invalid_client", "INVALID_CLIENT"),
        ({"client_secret": "sk_live_" + "0" * 64}, 401, "invalid_client", "INVALID_CLIENT"),
        ({"client_secret": "\x00"}, 401, "invalid_client", "INVALID_CLIENT"),
        ({"scope": "agents:write"}, 400, "invalid_scope", "SCOPE_NOT_PERMITTED"),
        ({"scope": "agents:read policies:write"}, 400, "invalid_scope", "SCOPE_NOT_PERMITTED"),
        ({"scope": "a\x00"}, 400, "invalid_request", "VALIDATION_ERROR"),
    ],
)
def test_refusals_of_a_grant(provider, client, changes, status, error, code):
    """Each refusal has an error of RFC 6749, 5.2, and a description that starts with our code."""
    answer = provider.grant(client, **changes)

    assert_oauth_refused(answer, status, error, code)
    assert answer.headers.get("WWW-Authenticate") == ('Basic realm="sentryagent"' if status == 401 else None)


@pytest.mark.parametrize(
    "header", ["Basic", "Basic ", "Basic %%%", "Basic é", "Basic YWJj", "Basic /w==", "basic Og=="]
)
def test_malformed_basic_credentials(provider, header):
    """Anything but `client_id:client_secret` in base64 is an invalid client."""
    answer = provider.http.post(
        TOKEN, data={"grant_type": "client_credentials"}, headers={"Authorization": header}
    )

    assert_oauth_refused(answer, 401, "invalid_client", "INVALID_CLIENT")


def test_two_clients_in_one_request(provider, client):
    """Header and form must not name different clients (RFC 6749, 2.3)."""
    answer = provider.grant(client, basic(*client), client_id=NOBODY)

    assert_oauth_refused(answer, 401, "invalid_client", "INVALID_CLIENT")


@pytest.mark.parametrize("path", [TOKEN, INTROSPECT, REVOKE])
def test_shape_of_errors_under_token(provider, path):
    """Every error under /token is in OAuth's format."""
    post = provider.http.post

    assert_oauth_refused(provider.http.get(path), 405, "invalid_request", "METHOD_NOT_ALLOWED")
    assert_oauth_refused(
        post(path, json={"token": "x"}, headers=provider.admin),
        415,
        "invalid_request",
        "UNSUPPORTED_MEDIA_TYPE",
    )
    assert_oauth_refused(
        post(path, data=b"x" * 32_769, content_type=FORM, headers=provider.admin),
        413,
        "invalid_request",
        "PAYLOAD_TOO_LARGE",
    )
    assert_oauth_refused(
        post(path, data="token=a&token=b", content_type=FORM, headers=provider.admin),
        400,
        "invalid_request",
        "VALIDATION_ERROR",
    )
    assert_oauth_refused(provider.http.post(f"{path}/x"), 404, "invalid_request", "NOT_FOUND")


# --- POST /token/introspect


def test_introspection_of_an_exchanged_token(provider):
    """An active token is described as in RFC 7662, with the run it was issued to."""
    policy = provider.policy()
    token = token_of(provider.bootstrap_headers())
    claims = claims_of(token)

    assert introspect(provider, token) == {
        "active": True,
        "scope": "agents:write",
        "client_id": "repo:octo-org/hello-agent",
        "sub": "repo:octo-org/hello-agent",
        "token_type": "Bearer",
        "iss": PROVIDER,
        "aud": PROVIDER,
        "iat": claims["iat"],
        "exp": claims["exp"],
        "jti": claims["jti"],
        "provenance": claims["provenance"],
    }
    assert claims["provenance"]["policy_id"] == policy["id"]


@pytest.mark.parametrize(
    "end",
    ["revoked", "expired", "suspended", "decommissioned", "unknown", "github", "other issuer", "changed"],
)
def test_inactive_tokens(provider, end):
    """Nothing else is revealed about an inactive token (RFC 7662, 2.2)."""
    agent = provider.agent()["agentId"]
    provider.policy(agentId=agent)
    token = token_of(provider.agent_headers(agent, jti="1"))
    assert introspect(provider, token)["active"] is True
    if end == "revoked":
        provider.post(REVOKE, data={"token": token})
    elif end == "expired":
        provider.clock.advance(3600)
        provider.admin = provider.admin_headers()
    elif end == "suspended":
        provider.patch(f"/api/v1/agents/{agent}", json={"status": end})
    elif end == "decommissioned":
        provider.delete(f"/api/v1/agents/{agent}")
    else:
        token = {
            "unknown": "x",
            "github": provider.github_token(),
            "other issuer": token_of(provider.with_settings(PUBLIC_URL="https://other.example.com").admin),
            "changed": f"{token[:-4]}AAAA",
        }[end]

    assert introspect(provider, token) == {"active": False}


def test_introspection_needs_its_scope_and_a_token(provider):
    """Introspection needs `tokens:read` and the `token` parameter."""
    weak = provider.admin_headers("agents:read", "audit:read")

    assert_oauth_refused(
        provider.http.post(INTROSPECT, data={"token": "x"}), 401, "invalid_token", "UNAUTHORIZED"
    )
    assert_oauth_refused(
        provider.http.post(INTROSPECT, data={"token": "x"}, headers=weak),
        403,
        "insufficient_scope",
        "FORBIDDEN",
    )
    for body in ({}, {"token": ""}, {"tokens": "x"}):
        answer = provider.post(INTROSPECT, data=body, content_type=FORM)
        assert (
            "token"
            in assert_oauth_refused(answer, 400, "invalid_request", "VALIDATION_ERROR")["error_description"]
        )


# --- POST /token/revoke


@pytest.fixture
def issued(provider, client):
    """An access token that an agent got with its secret."""
    return provider.grant(client).json["access_token"]


@pytest.mark.parametrize("by", ["itself", "admin", "basic", "form"])
def test_who_may_revoke(provider, client, issued, by):
    """The token itself, an admin and the client's secret can revoke it; it is refused at once, in every process."""
    headers = {
        "itself": bearer(issued),
        "admin": provider.admin_headers("agents:write"),
        "basic": basic(*client),
        "form": {},
    }[by]
    body = {"token": issued, **({"client_id": client[0], "client_secret": client[1]} if by == "form" else {})}

    answer = provider.http.post(REVOKE, data=body, headers=headers)

    assert (answer.status_code, answer.data) == (200, b"")
    for process in (provider, provider.with_settings()):
        assert process.http.get("/api/v1/agents", headers=bearer(issued)).status_code == 401
        assert introspect(process, issued) == {"active": False}
    (record,) = provider.audit(action="token.revoked")
    assert record["details"]["revokedJti"] == claims_of(issued)["jti"]
    assert record["agentId"] == client[0]


def test_bootstrap_token_revokes_itself(provider):
    """A run can revoke its own bootstrap token."""
    provider.policy()
    headers = provider.bootstrap_headers()

    assert provider.http.post(REVOKE, data={"token": token_of(headers)}, headers=headers).status_code == 200
    assert provider.http.get("/api/v1/agents", headers=headers).status_code == 401


def test_a_sister_token_does_not_revoke(provider, client):
    """Another token of the same subject cannot revoke: a repository's name, a subject, can change hands."""
    agent, _ = client
    provider.policy()
    provider.policy(agentId=agent, scopes=["agents:read", "agents:write"])
    weak = provider.admin_headers("agents:read"), provider.admin_headers("agents:read")
    pairs = [
        (provider.bootstrap_headers(), provider.bootstrap_headers()),
        (provider.agent_headers(agent), provider.agent_headers(agent)),
        weak,
    ]
    for mine, sisters in pairs:
        answer = provider.http.post(REVOKE, data={"token": token_of(sisters)}, headers=mine)
        refusal = assert_oauth_refused(answer, 403, "insufficient_scope", "FORBIDDEN")
        assert "belongs to another client" in refusal["error_description"]
        for headers in (mine, sisters):
            assert introspect(provider, token_of(headers))["active"] is True

    assert provider.audit(action="token.revoked") == []


def test_a_client_revokes_whatever_was_issued_to_it(provider, client):
    """The agent's secret also revokes a token that a run got for the agent."""
    provider.policy(agentId=client[0])
    token = token_of(provider.agent_headers(client[0]))

    assert provider.http.post(REVOKE, data={"token": token}, headers=basic(*client)).status_code == 200
    assert introspect(provider, token) == {"active": False}


@pytest.mark.parametrize("sent", ["junk", "github", "changed"])
def test_strangers_tokens_lock_nothing(provider, sent):
    """A token that is not ours is answered while another request writes: it takes no write lock."""
    text = token_of(provider.admin)
    token = {"junk": "x", "github": provider.github_token(), "changed": f"{text[:-4]}AAAA"}[sent]

    with provider.store.write():
        answer = provider.http.post(REVOKE, data={"token": token}, headers=bearer(token))

    assert answer.status_code == 200


def test_revocation_is_idempotent(provider, issued):
    """Revoking a token again, or an unknown token, is a 200 without a second record."""
    for token, headers in ((issued, bearer(issued)), (issued, bearer(issued)), (issued, provider.admin)):
        assert provider.http.post(REVOKE, data={"token": token}, headers=headers).status_code == 200
    assert provider.http.post(REVOKE, data={"token": "unknown"}, headers=bearer("unknown")).status_code == 200
    assert provider.post(REVOKE, data={"token": "unknown"}).status_code == 200
    hinted = {"token": issued, "token_type_hint": "access_token"}
    assert provider.post(REVOKE, data=hinted).status_code == 200

    assert len(provider.audit(action="token.revoked")) == 1


def test_somebody_elses_token_is_not_revoked(provider, client, issued):
    """Another agent, a repository, or an admin without agents:write cannot revoke the token; it stays valid."""
    provider.policy()
    other = provider.agent("other@octo-org.example")["agentId"]
    provider.policy(agentId=other, scopes=["agents:read", "agents:write", "tokens:read"])
    secret = provider.post(f"/api/v1/agents/{other}/credentials").json["clientSecret"]
    for headers in (
        provider.bootstrap_headers(),
        provider.agent_headers(other),
        basic(other, secret),
        provider.admin_headers("agents:read", "tokens:read"),
    ):
        answer = provider.http.post(REVOKE, data={"token": issued}, headers=headers)
        assert_oauth_refused(answer, 403, "insufficient_scope", "FORBIDDEN")

    assert introspect(provider, issued)["active"] is True


def test_nobody_revokes(provider, client, issued):
    """Without valid credentials nothing is revoked."""
    cases = [
        ({}, {}, "invalid_token"),
        ({}, bearer("x"), "invalid_token"),
        ({}, basic(client[0], "x"), "invalid_client"),
    ]
    cases.append(({"client_id": client[0], "client_secret": "x"}, {}, "invalid_client"))
    for extra, headers, error in cases:
        answer = provider.http.post(REVOKE, data={"token": issued, **extra}, headers=headers)
        code = "UNAUTHORIZED" if error == "invalid_token" else "INVALID_CLIENT"
        assert_oauth_refused(answer, 401, error, code)
    answer = provider.post(REVOKE, data={}, content_type=FORM)
    assert_oauth_refused(answer, 400, "invalid_request", "VALIDATION_ERROR")

    assert introspect(provider, issued)["active"] is True


def test_secrets_of_tokens_are_audited_by_id(provider, client, issued):
    """The record of a grant has the token's id, and not the secret."""
    (record,) = provider.audit(action="token.issued")

    assert record["details"]["issuedJti"] == claims_of(issued)["jti"]
    assert record["agentId"] == client[0]
    assert client[1] not in str(provider.audit())
