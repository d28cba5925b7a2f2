"""Authorization of every route, and of the three kinds of token."""

import re

import pytest

from kit.provider import AGENTS, NOBODY, POLICIES
from kit.refusals import assert_refused
from kit.tokens import bearer, token_of

INCLUDED_IN = {
    "agents:read": {"agents:read", "agents:write"},
    "agents:write": {"agents:write"},
    "tokens:read": {"tokens:read"},
    "audit:read": {"audit:read"},
    "policies:read": {"policies:read", "policies:write"},
    "policies:write": {"policies:write"},
    "services:read": {"services:read", "services:write"},
    "services:write": {"services:write"},
}
"""The scopes that satisfy each scope of the API, written out."""


OPEN = {
    ("POST", "/api/v1/oidc/token"),
    ("GET", "/api/v1/oidc/audience"),
    ("POST", "/api/v1/token"),
    ("POST", "/api/v1/token/revoke"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/openid-configuration"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
}
"""The routes that need no access token."""


def routes(app):
    """Yield each method, rule, concrete path and required scope."""
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            path = re.sub(r"<[^>]+>", NOBODY, rule.rule)
            yield method, rule.rule, path, getattr(view, "required_scope", None)


def test_only_known_routes_are_open(provider):
    """A route without a guard must be in the list of open routes."""
    unguarded = {(method, rule) for method, rule, _, scope in routes(provider.app) if scope is None}

    assert unguarded <= OPEN, unguarded - OPEN
    assert len(unguarded) >= 9


def test_every_guarded_route_needs_a_token_and_its_scope(provider):
    """No token is a 401, every other scope a 403 that names the missing one, that scope alone neither."""
    guarded = [(method, path, scope) for method, _, path, scope in routes(provider.app) if scope is not None]
    tokens = {scope: provider.admin_headers(scope) for scope in INCLUDED_IN}
    others = {
        wanted: provider.admin_headers(*(INCLUDED_IN.keys() - allowing))
        for wanted, allowing in INCLUDED_IN.items()
    }

    for method, path, scope in guarded:
        nobody = provider.http.open(path, method=method)
        stranger = provider.http.open(path, method=method, headers=others[scope])
        bearer = provider.http.open(path, method=method, headers=tokens[scope])

        assert nobody.status_code == 401, (method, path)
        assert nobody.headers["WWW-Authenticate"] == 'Bearer realm="sentryagent"'
        assert stranger.status_code == 403, (method, path)
        if "/token/" in path:
            assert stranger.json["error"] == "insufficient_scope"
        else:
            assert stranger.json["details"] == {"requiredScope": scope}
        assert bearer.status_code not in {401, 403}, (method, path)

    assert {scope for _, _, scope in guarded} == set(INCLUDED_IN)


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (None, 'Bearer realm="sentryagent"'),
        ("", 'Bearer realm="sentryagent", error="invalid_token"'),
        ("Bearer", 'Bearer realm="sentryagent", error="invalid_token"'),
        ("Bearer  ", 'Bearer realm="sentryagent", error="invalid_token"'),
        ("Basic YTpi", 'Bearer realm="sentryagent", error="invalid_token"'),
        ("Token abc", 'Bearer realm="sentryagent", error="invalid_token"'),
        ("Bearer abc", 'Bearer realm="sentryagent", error="invalid_token"'),
        ("Bearer a.b.c", 'Bearer realm="sentryagent", error="invalid_token"'),
        ("Bearer \xff\xfe", 'Bearer realm="sentryagent", error="invalid_token"'),
        (f"Bearer {'x' * 20_000}", 'Bearer realm="sentryagent", error="invalid_token"'),
    ],
)
def test_what_is_no_token_is_401(still_provider, header, challenge):
    """The challenge names an error only if a credential was sent (RFC 6750, 3)."""
    answer = still_provider.http.get(POLICIES, headers={} if header is None else {"Authorization": header})

    assert_refused(answer, 401, "UNAUTHORIZED", {})
    assert answer.headers["WWW-Authenticate"] == challenge


def test_scheme_is_compared_without_case(provider):
    """The authentication scheme is case-insensitive (RFC 9110, 11.1)."""
    headers = {"Authorization": provider.admin["Authorization"].replace("Bearer", "bEARER")}

    assert provider.http.get(POLICIES, headers=headers).status_code == 200


def test_githubs_own_token_opens_nothing(provider):
    """An ID token can be exchanged but is not an access token (RFC 8725, 3.11)."""
    provider.policy()
    headers = bearer(provider.github_token())

    assert (
        "exchange"
        in assert_refused(provider.http.get(AGENTS, headers=headers), 401, "UNAUTHORIZED")["message"]
    )


@pytest.mark.parametrize("seconds", [3599, 3600])
def test_a_token_ends_to_the_second(provider, seconds):
    """An access token is valid until its `exp` and not a second longer."""
    provider.clock.advance(seconds)

    assert (provider.get(POLICIES).status_code == 200) is (seconds < 3600)


def test_a_token_of_another_issuer_or_audience_is_401(provider):
    """A token of another issuer or audience is refused even if it is signed with our key."""
    for variables in (
        {"PUBLIC_URL": "https://other.example.com"},
        {"TOKEN_AUDIENCE": "https://api.example.com"},
    ):
        other = provider.with_settings(**{"OIDC_AUDIENCE": "https://idp.example.com", **variables})

        assert_refused(other.http.get(POLICIES, headers=provider.admin), 401, "UNAUTHORIZED", {})
        assert_refused(provider.http.get(POLICIES, headers=other.admin), 401, "UNAUTHORIZED", {})


def test_a_changed_token_is_401(provider):
    """A token whose claims or signature were changed is refused."""
    head, payload, signature = provider.admin["Authorization"].split(".")
    for changed in (f"{head}.{payload[:-2]}AA.{signature}", f"{head}.{payload}.{'A' * len(signature)}"):
        assert_refused(
            provider.http.get(POLICIES, headers={"Authorization": changed}), 401, "UNAUTHORIZED", {}
        )


def _world(provider):
    """A repository with a bootstrap policy and an agent of its own, and an agent that no repository registered."""
    provider.policy(trustRegistered=True, scopes=["agents:read", "agents:write"])
    bootstrap = provider.bootstrap_headers()
    own = provider.agent("own@octo-org.example", headers=bootstrap)["agentId"]
    strange = provider.agent("strange@octo-org.example")["agentId"]
    return bootstrap, provider.agent_headers(own), own, strange


@pytest.mark.parametrize(
    ("method", "path", "body", "bootstrap", "agent"),
    [
        ("GET", AGENTS, None, 200, 200),
        ("GET", AGENTS + "/OWN", None, 200, 200),
        ("GET", AGENTS + "/STRANGE", None, 404, 404),
        ("POST", AGENTS, {"email": "new@octo-org.example"}, 201, 403),
        ("PATCH", AGENTS + "/OWN", {"description": "x"}, 200, 200),
        ("PATCH", AGENTS + "/OWN", {"agentType": "router"}, 200, 200),
        ("PATCH", AGENTS + "/OWN", {"version": "2.0.0"}, 200, 200),
        ("PATCH", AGENTS + "/OWN", {"capabilities": ["a:b"]}, 200, 200),
        ("PATCH", AGENTS + "/OWN", {"deploymentEnv": "staging"}, 200, 200),
        ("PATCH", AGENTS + "/OWN", {"owner": "x"}, 200, 403),
        ("PATCH", AGENTS + "/OWN", {"email": "x@octo-org.example"}, 403, 403),
        ("PATCH", AGENTS + "/OWN", {"status": "active"}, 403, 403),
        ("PATCH", AGENTS + "/STRANGE", {"description": "x"}, 404, 404),
        ("DELETE", AGENTS + "/OWN", None, 204, 403),
        ("DELETE", AGENTS + "/STRANGE", None, 404, 404),
        ("POST", AGENTS + "/OWN/credentials", {}, 403, 403),
        ("GET", AGENTS + "/OWN/credentials", None, 403, 403),
        ("POST", f"{AGENTS}/OWN/credentials/{NOBODY}/rotate", None, 403, 403),
        ("DELETE", f"{AGENTS}/OWN/credentials/{NOBODY}", None, 403, 403),
        ("GET", POLICIES, None, 403, 403),
        ("GET", f"{POLICIES}/{NOBODY}", None, 403, 403),
        ("POST", POLICIES, {"repository": "octo-org/x"}, 403, 403),
        ("PUT", f"{POLICIES}/{NOBODY}", {"repository": "octo-org/x"}, 403, 403),
        ("DELETE", f"{POLICIES}/{NOBODY}", None, 403, 403),
        ("GET", "/api/v1/audit", None, 403, 403),
    ],
)
def test_what_bootstrap_and_agent_tokens_reach(provider, method, path, body, bootstrap, agent):
    """A bootstrap token reaches its repository's agents and an agent's token itself; neither reaches more."""
    of_bootstrap, of_agent, own, strange = _world(provider)
    path = path.replace("OWN", own).replace("STRANGE", strange)

    # The agent goes first: the bootstrap token may decommission it, which would end the agent's token.
    answers = [
        provider.http.open(path, method=method, json=body, headers=headers)
        for headers in (of_agent, of_bootstrap)
    ]

    assert [answer.status_code for answer in answers] == [agent, bootstrap], [it.text for it in answers]


def test_agents_read_alone_changes_nothing(provider):
    """An agent whose policy grants only `agents:read` can read itself but not PATCH."""
    agent = provider.agent()["agentId"]
    provider.policy(agentId=agent)
    headers = provider.agent_headers(agent)

    assert provider.http.get(f"{AGENTS}/{agent}", headers=headers).status_code == 200
    answer = provider.http.patch(f"{AGENTS}/{agent}", json={"description": "x"}, headers=headers)
    assert_refused(answer, 403, "FORBIDDEN", {"requiredScope": "agents:write"})


def test_lists_hold_what_the_caller_may_see(provider):
    """An admin sees every agent, a repository its own, an agent itself; a filter never widens that."""
    bootstrap, agent, own, strange = _world(provider)

    def seen(headers, query=""):
        answer = provider.http.get(f"{AGENTS}?{query}", headers=headers).json
        return {it["agentId"] for it in answer["data"]}, answer["total"]

    assert seen(provider.admin) == ({own, strange}, 2)
    assert seen(bootstrap) == ({own}, 1)
    assert seen(agent) == ({own}, 1)
    assert seen(bootstrap, "email=strange@octo-org.example") == (set(), 0)
    assert seen(agent, "email=strange@octo-org.example") == (set(), 0)


def test_another_repository_of_the_same_name_sees_nothing(provider):
    """An agent belongs to its repository's id, not its name (A8)."""
    policy = provider.policy()
    own = provider.agent("own@octo-org.example", headers=provider.bootstrap_headers())["agentId"]
    unpinned = {"repository": policy["repository"], "repositoryId": None, "repositoryOwnerId": None}
    provider.put(f"{POLICIES}/{policy['id']}", json=unpinned)

    other = provider.bootstrap_headers(repository_id="999")

    assert provider.http.get(f"{AGENTS}/{own}", headers=other).status_code == 404
    assert provider.http.get(AGENTS, headers=other).json["total"] == 0


def test_a_renamed_repository_keeps_its_agents(provider):
    """A renamed repository with a policy for its new name still manages the agents it registered."""
    provider.policy()
    own = provider.agent("own@octo-org.example", headers=provider.bootstrap_headers())["agentId"]
    provider.policy(repository="octo-org/renamed")

    renamed = provider.bootstrap_headers(repository="octo-org/renamed")

    assert provider.http.get(f"{AGENTS}/{own}", headers=renamed).status_code == 200


@pytest.mark.parametrize("end", ["suspended", "decommissioned", "revoked"])
def test_a_token_stops_counting_at_once(provider, end):
    """Suspension, decommissioning and revocation apply to the next request, in every process."""
    _, headers, own, _ = _world(provider)
    other_process = provider.with_settings()
    if end == "suspended":
        provider.patch(f"{AGENTS}/{own}", json={"status": "suspended"})
    elif end == "decommissioned":
        provider.delete(f"{AGENTS}/{own}")
    else:
        token = token_of(headers)
        provider.http.post("/api/v1/token/revoke", data={"token": token}, headers=headers)

    for process in (provider, other_process):
        assert_refused(process.http.get(f"{AGENTS}/{own}", headers=headers), 401, "UNAUTHORIZED", {})


def test_a_lifted_suspension_revives_the_token(provider):
    """When an admin lifts a suspension, the same token is valid again."""
    _, headers, own, _ = _world(provider)
    for status in ("suspended", "active"):
        provider.patch(f"{AGENTS}/{own}", json={"status": status})

    assert provider.http.get(f"{AGENTS}/{own}", headers=headers).status_code == 200
