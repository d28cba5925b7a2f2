"""A token for a service is valid there and nowhere else."""

from datetime import timedelta
from uuid import uuid4

import pytest

from kit.policies import delete
from kit.provider import (
    AGENTS,
    AUDIT,
    EXCHANGE,
    HERE,
    INTROSPECT,
    NOBODY,
    POLICIES,
    PROVIDER,
    REVOKE,
    SERVICES,
    TOKEN,
    good,
    grant_form,
)
from kit.refusals import assert_invalid, assert_oauth_refused, assert_refused
from kit.tokens import basic, bearer, claims_of
from mock_idp.job import Job
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.clients import ClientAdmin

A = "https://a.example.com"
B = "urn:example:b"
LOOKALIKES = [A + "/", A + ":443", "https://A.example.com", "HTTPS://a.example.com", A + "/x", A + "?", "a"]
GRANTS = [{"service": A, "scopes": ["read", "deploy"]}, {"service": B, "scopes": ["read"]}]
PINNED = {"repositoryId": Job().repository_id, "repositoryOwnerId": Job().repository_owner_id}


@pytest.fixture
def agent(any_provider):
    """An agent whose policy grants two services."""
    any_provider.service(A, "read", "deploy")
    any_provider.service(B, "read", "deploy")
    return any_provider.trusted_agent(grants=GRANTS, **PINNED)[0]


def token_for(provider, agent, resource=None, **body):
    """The token of an exchange that must succeed."""
    extra = {} if resource is None else {"resource": resource}
    return good(provider.exchange(agentId=agent, **extra, **body))["access_token"]


def introspect(provider, token, headers):
    return good(provider.http.post(INTROSPECT, data={"token": token}, headers=headers))


def form(provider, agent, **changes):
    """Exchange with the form of RFC 8693; in values that are lists, AGENT stands for the agent's URN."""
    named = {"AGENT": f"urn:sentryagent:agent:{agent}"}
    changes = {
        name: [named.get(value, value) for value in values] if isinstance(values, list) else values
        for name, values in changes.items()
    }
    fields = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": provider.github_token(),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    }
    return provider.http.post(EXCHANGE, data={**fields, **changes})


@pytest.mark.parametrize(
    ("body", "audience", "scope"),
    [
        ({}, PROVIDER, "agents:read"),
        ({"resource": A}, A, "read deploy"),
        ({"resource": A, "scope": "deploy"}, A, "deploy"),
        ({"resource": A, "scope": "deploy read"}, A, "deploy read"),
        ({"resource": B}, B, "read"),
    ],
)
def test_a_token_for_a_service(any_provider, agent, body, audience, scope):
    """`aud` is the identifier and `scope` the granted scopes; the audit has the audience, a dry run the scope."""
    dry = good(any_provider.exchange(agentId=agent, dryRun=True, **body))
    answers = [good(any_provider.exchange(agentId=agent, **body)) for _ in range(2)]

    assert dry["scope"] == scope
    for answer in answers:
        claims = claims_of(answer["access_token"])
        assert (claims["aud"], claims["scope"], answer["scope"]) == (audience, scope, scope)
        assert (claims["sub"], claims["client_id"]) == (agent, agent)
        assert claims.keys() == {
            *("iss", "sub", "aud", "client_id", "scope", "iat", "nbf", "exp", "jti"),
            "provenance",
        }
    issued = any_provider.audit(action="token.issued")
    assert [it["details"]["audience"] for it in issued] == [audience, audience]


@pytest.mark.parametrize("resource", [*LOOKALIKES, PROVIDER, "urn:example:nowhere"])
def test_a_service_that_is_not_granted(any_provider, agent, resource):
    """Existing and unknown services are refused alike, with the granted ones; the audit has the requested one."""
    any_provider.service("https://exists.example.com", "read")
    for asked in (resource, "https://exists.example.com"):
        answer = any_provider.exchange(agentId=agent, resource=asked)
        assert_refused(answer, 403, "SERVICE_NOT_PERMITTED", {"permitted": [A, B]})
        dry = any_provider.exchange(agentId=agent, resource=asked, dryRun=True)
        assert_refused(dry, 403, "SERVICE_NOT_PERMITTED", {"permitted": [A, B]})

    (refused,) = any_provider.audit(action="token.refused")
    assert refused["details"]["resource"] == resource
    assert refused["details"]["reason"] == "service_not_permitted"
    silent = any_provider.with_settings(EXPLAIN="off").exchange(agentId=agent, resource=resource)
    assert_refused(silent, 403, "SERVICE_NOT_PERMITTED", {})


def test_other_refusals_come_as_ever(any_provider, agent):
    """Scope, identity, agent and branch are refused as in an exchange without a service."""
    provider, asked = any_provider, {"agentId": agent, "resource": A}
    refused = provider.exchange(**asked, scope="read write")
    assert_refused(refused, 403, "SCOPE_NOT_PERMITTED", {"permitted": ["read", "deploy"]})
    refused = provider.exchange(**asked, scope="agents:read")
    assert_refused(refused, 403, "SCOPE_NOT_PERMITTED", {"permitted": ["read", "deploy"]})

    changed = provider.exchange(provider.github_token(repository_id="999"), **asked)
    assert_refused(changed, 403, "IDENTITY_CHANGED", {})
    unknown = provider.exchange(agentId=NOBODY, resource=A)
    assert_refused(unknown, 403, "TRUST_POLICY_VIOLATION")

    (policy,) = good(provider.get(POLICIES))["data"]
    provider.replace_policy(policy, branch="release")
    refusal = assert_refused(provider.exchange(**asked), 403, "BRANCH_NOT_PERMITTED")
    assert refusal["details"]["suggestedPolicy"]["grants"] == GRANTS
    assert provider.audit(action="token.refused", agentId=agent)[0]["details"]["resource"] == A
    provider.patch(f"{AGENTS}/{agent}", json={"status": "suspended"})
    refusal = assert_refused(provider.exchange(**asked), 403, "TRUST_POLICY_VIOLATION")
    assert refusal["details"]["suggestedPolicy"] is None


def test_without_an_agent(still_provider):
    """A token for a service needs an agent."""
    assert_invalid(still_provider.exchange(resource=A), "agentId")
    claims = {"repository": "octo-org/hello-agent", "repository_id": "1", "repository_owner_id": "2"}
    body = {"claims": {**claims, "ref": "refs/heads/main", "event_name": "push"}, "resource": A}
    assert_invalid(still_provider.post(f"{POLICIES}/simulate", json=body), "agentId")


@pytest.mark.parametrize("resource", ["", "x" * 256, "a\nb", 1, [A], {}])
def test_malformed_resource(still_provider, resource):
    """A value that cannot be an identifier is refused by field, and not repeated in the response."""
    answer = still_provider.exchange(agentId=NOBODY, resource=resource)
    assert_invalid(answer, "resource")
    assert "xxxx" not in answer.text


@pytest.mark.parametrize(
    ("scope", "resource", "status"),
    [("x" * 100, A, 200), ("x" * 101, A, 400), ("x" * 65, None, 400), ("x" * 64, None, 403)],
)
def test_scopes_of_services_may_be_longer(provider, scope, resource, status):
    """A service's scope may have 100 characters; without a service the limit stays 64."""
    provider.service(A, "x" * 100)
    agent, _ = provider.trusted_agent(grants=[{"service": A, "scopes": ["x" * 100]}])
    extra = {} if resource is None else {"resource": resource}
    assert provider.exchange(agentId=agent, scope=scope, **extra).status_code == status


@pytest.mark.parametrize(
    ("server", "service", "policy", "request_", "expected"),
    [
        (3600, None, None, None, 3600),
        (3600, 600, None, None, 600),
        (3600, 600, 300, None, 300),
        (3600, 300, 600, None, 300),
        (3600, 600, 300, 60, 60),
        (3600, 60, 300, 600, 60),
        (120, 600, None, None, 120),
        (3600, 7200, None, 7200, 3600),
    ],
)
def test_lifetime(provider, server, service, policy, request_, expected):
    """The lifetime is the shortest of server, service, policy and request; tokens for our own API ignore the service."""
    provider.service(A, "read", **({} if service is None else {"maxTtl": service}))
    grants = [{"service": A, "scopes": ["read"]}]
    agent, _ = provider.trusted_agent(grants=grants, **({} if policy is None else {"maxTtl": policy}))
    served = provider.with_settings(TOKEN_TTL=str(server))
    body = {"agentId": agent} | ({} if request_ is None else {"expiresIn": request_})

    for _ in range(2):
        assert good(served.exchange(resource=A, **body))["expires_in"] == expected
    least = min(it for it in (server, policy, request_) if it is not None)
    assert good(served.exchange(**body))["expires_in"] == least


def test_scopes_for_services_alone(provider):
    """A policy with only a service's scopes gives no token for our own API, exchanged or simulated."""
    provider.service(A, "read")
    agent, _ = provider.trusted_agent(grants=[{"service": A, "scopes": ["read"]}], scopes=[])

    for asked in ({}, {"scope": "agents:read"}, {"dryRun": True}):
        answer = provider.exchange(agentId=agent, **asked)
        assert (
            "`resource`" in assert_refused(answer, 403, "SCOPE_NOT_PERMITTED", {"permitted": []})["message"]
        )
    assert claims_of(token_for(provider, agent, A))["scope"] == "read"
    token = {"token": provider.github_token(), "agentId": agent}
    simulated = good(provider.post(f"{POLICIES}/simulate", json=token))
    assert (simulated["allowed"], simulated["code"]) == (False, "SCOPE_NOT_PERMITTED")


def test_simulation(provider):
    """A simulation decides as the exchange would, and shows for each policy whether it grants the service."""
    provider.service(A, "read")
    agent, granting = provider.trusted_agent(grants=[{"service": A, "scopes": ["read"]}], branch="main")
    other = provider.policy(agentId=agent)

    def simulated(resource):
        body = {"token": provider.github_token(), "agentId": agent, "resource": resource}
        answer = good(provider.post(f"{POLICIES}/simulate", json=body))
        failed = {it["policyId"]: [f["condition"] for f in it["failed"]] for it in answer["trace"]}
        return answer["allowed"], answer["code"], answer["policyId"], answer["scope"], failed

    assert simulated(A) == (True, None, granting["id"], "read", {granting["id"]: [], other["id"]: ["grants"]})
    assert simulated(B) == (
        False,
        "SERVICE_NOT_PERMITTED",
        None,
        None,
        {granting["id"]: ["grants"], other["id"]: ["grants"]},
    )


@pytest.mark.parametrize(
    ("fields", "audience"),
    [
        ({"audience": A}, A),
        ({"resource": ["AGENT", A]}, A),
        ({"resource": [A, "AGENT"]}, A),
        ({"resource": [A, "AGENT", A], "audience": A}, A),
        ({"resource": ["AGENT", "AGENT"], "audience": [B, B]}, B),
        ({"resource": ["AGENT", ""], "audience": ""}, PROVIDER),
        ({"audience": PROVIDER}, PROVIDER),
    ],
)
def test_form(any_provider, agent, fields, audience):
    """`audience` or a second `resource` names the service, in any order; it may be named twice."""
    token = good(form(any_provider, agent, **{"resource": ["AGENT"], **fields}))["access_token"]
    assert claims_of(token)["aud"] == audience


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"resource": ["AGENT", "https://nowhere.example.com"]}, "invalid_target", "SERVICE_NOT_PERMITTED"),
        ({"resource": ["AGENT"], "audience": A + "/"}, "invalid_target", "SERVICE_NOT_PERMITTED"),
        ({"resource": ["AGENT", PROVIDER]}, "invalid_target", "SERVICE_NOT_PERMITTED"),
        ({"resource": ["AGENT", A], "audience": B}, "invalid_target", "INVALID_TARGET"),
        ({"resource": ["AGENT", A], "audience": PROVIDER}, "invalid_target", "INVALID_TARGET"),
        ({"resource": ["AGENT", A, B]}, "invalid_target", "INVALID_TARGET"),
        ({"resource": ["AGENT"], "audience": [A, B]}, "invalid_target", "INVALID_TARGET"),
        ({"resource": ["AGENT", f"urn:sentryagent:agent:{NOBODY}"]}, "invalid_target", "INVALID_TARGET"),
        ({"resource": ["AGENT", "nonsense"]}, "invalid_target", "INVALID_TARGET"),
        ({"resource": ["AGENT", "urn:sentryagent:x"]}, "invalid_target", "INVALID_TARGET"),
        ({"resource": ["AGENT"], "audience": ["AGENT"]}, "invalid_target", "INVALID_TARGET"),
        ({"audience": A}, "invalid_request", "VALIDATION_ERROR"),
        ({"resource": A}, "invalid_request", "VALIDATION_ERROR"),
        ({"resource": [A, B]}, "invalid_request", "VALIDATION_ERROR"),
        ({"resource": ["AGENT", A], "scope": "write"}, "invalid_scope", "SCOPE_NOT_PERMITTED"),
        ({"resource": ["AGENT", A], "scope": ["read", "read"]}, "invalid_request", "VALIDATION_ERROR"),
    ],
)
def test_form_refusals(any_provider, agent, fields, error, code):
    """A target must be permitted, must be only one, and needs an agent (RFC 8693, 2.2.2)."""
    assert_oauth_refused(form(any_provider, agent, **fields), 400, error, code)


def test_a_token_is_good_at_its_service_alone(any_provider, agent):
    """For every pair: a service's client and our own API accept their own tokens and no other."""
    tokens = {A: None, B: None, None: None}
    tokens = {resource: token_for(any_provider, agent, resource) for resource in tokens}
    clients = {resource: any_provider.service_client(resource) for resource in (A, B)}

    for resource, token in tokens.items():
        for service, client in clients.items():
            seen = introspect(any_provider, token, client)
            assert (seen == {"active": False}) == (resource != service)
            if resource == service:
                assert (seen["active"], seen["aud"], seen["sub"]) == (True, service, agent)
                assert seen["scope"] == claims_of(token)["scope"]
        answer = any_provider.http.get(f"{AGENTS}/{agent}", headers=bearer(token))
        if resource is None:
            assert answer.status_code == 200
        else:
            message = assert_refused(answer, 401, "UNAUTHORIZED", {})["message"]
            assert "another service" in message
            assert resource in message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", AGENTS),
        ("POST", AGENTS),
        ("GET", POLICIES),
        ("POST", POLICIES),
        ("GET", SERVICES),
        ("POST", SERVICES),
        ("GET", AUDIT),
        ("POST", INTROSPECT),
        ("POST", REVOKE),
    ],
)
def test_our_own_api_refuses_a_services_token(provider, method, path):
    """Whatever its scopes, the token opens nothing, and cannot introspect or revoke another token."""
    provider.service(A, "read")
    agent, _ = provider.trusted_agent(grants=[{"service": A, "scopes": ["read"]}], scopes=["agents:write"])
    own, token = token_for(provider, agent), token_for(provider, agent, A)
    body = {"data": {"token": own}} if "/token/" in path else {}

    answer = provider.http.open(path, method=method, headers=bearer(token), **body)

    assert answer.status_code == 401
    assert provider.http.get(AGENTS, headers=bearer(own)).status_code == 200


def test_readers_of_tokens(any_provider, agent):
    """An admin can introspect every token; an agent with `tokens:read` only those for our own API."""
    any_provider.policy(agentId=agent, branch="main", scopes=["tokens:read"])
    reader = any_provider.agent_headers(agent)
    own, foreign = token_for(any_provider, agent), token_for(any_provider, agent, A)

    assert introspect(any_provider, own, any_provider.admin)["aud"] == PROVIDER
    assert introspect(any_provider, foreign, any_provider.admin)["aud"] == A
    assert introspect(any_provider, own, reader)["active"] is True
    assert introspect(any_provider, foreign, reader) == {"active": False}


@pytest.mark.parametrize("end", ["revoked", "expired", "suspended", "by an admin", "by its client"])
def test_a_services_token_ends(any_provider, agent, end):
    """Revoked (by itself, an admin or its agent's secret), expired or suspended, it is inactive in every process."""
    provider, client = any_provider, any_provider.service_client(A)
    token = token_for(provider, agent, A)
    other = provider.with_settings()
    secret = basic(*provider.client(agent))
    assert introspect(other, token, client)["active"] is True

    if end == "expired":
        provider.clock.advance(3600)
    elif end == "suspended":
        provider.patch(f"{AGENTS}/{agent}", json={"status": "suspended"})
    else:
        headers = {"revoked": bearer(token), "by an admin": provider.admin, "by its client": secret}[end]
        assert provider.http.post(REVOKE, data={"token": token}, headers=headers).status_code == 200

    for process in (provider, other):
        assert introspect(process, token, client) == {"active": False}


def test_a_services_client_does_nothing_else(any_provider, agent):
    """A service's client gets no token and revokes none; its secret is valid only for introspection."""
    provider, headers = any_provider, any_provider.service_client(A)
    token = token_for(provider, agent, A)

    for scope in ({}, {"scope": "agents:read"}):
        answer = provider.http.post(
            TOKEN, data={"grant_type": "client_credentials", **scope}, headers=headers
        )
        assert_oauth_refused(answer, 400, "unauthorized_client", "UNAUTHORIZED_CLIENT")
    for text in (token, "unknown"):
        answer = provider.http.post(REVOKE, data={"token": text}, headers=headers)
        assert_oauth_refused(answer, 403, "insufficient_scope", "FORBIDDEN")
    assert introspect(provider, token, headers)["active"] is True
    assert introspect(provider, "unknown", headers) == {"active": False}
    assert provider.http.get(AGENTS, headers=headers).status_code == 401
    missing = provider.http.post(INTROSPECT, headers=headers, data={"x": "y"})
    assert_oauth_refused(missing, 400, "invalid_request", "VALIDATION_ERROR")


def test_other_clients_do_not_introspect_by_their_secret(provider):
    """A wrong secret is a 401, an agent's secret a 403: the agent can introspect with a token instead."""
    provider.service(A, "read")
    agent, secret = provider.client()
    wrong = provider.http.post(INTROSPECT, data={"token": "x"}, headers=basic(agent, "sk_live_x"))
    assert_oauth_refused(wrong, 401, "invalid_client", "INVALID_CLIENT")
    assert wrong.headers["WWW-Authenticate"].startswith("Basic")
    answer = provider.http.post(INTROSPECT, data={"token": "x"}, headers=basic(agent, secret))
    assert_oauth_refused(answer, 403, "insufficient_scope", "FORBIDDEN")
    in_form = provider.http.post(INTROSPECT, data={"token": "x", **grant_form(agent, secret)})
    assert in_form.status_code == 401


def test_a_revoked_client_introspects_no_more(provider):
    """A revoked client is refused at once."""
    provider.service(A, "read")
    admin = ClientAdmin(provider.store, Auditor(provider.clock, uuid4), provider.clock, uuid4)
    client, secret = admin.create_for_service("admin-cli", "verifier", A, HERE)
    headers = basic(client.client_id, secret)
    assert client.client_id.startswith("service-")
    assert introspect(provider, "x", headers) == {"active": False}

    admin.revoke("admin-cli", client.client_id, HERE)

    answer = provider.http.post(INTROSPECT, data={"token": "x"}, headers=headers)
    assert_oauth_refused(answer, 401, "invalid_client", "INVALID_CLIENT")
    made, *_ = provider.audit(action="client.created")
    assert made["details"] == {"clientId": client.client_id, "name": "verifier", "service": A}


def test_a_service_made_again_inherits_nothing(any_provider, agent):
    """Tokens of a deleted service stay inactive when a service with the same identifier is created."""
    provider = any_provider
    old = token_for(provider, agent, A)
    (policy,) = good(provider.get(POLICIES))["data"]
    provider.replace_policy(policy, grants=[])
    (service,) = good(provider.get(f"{SERVICES}?identifier={A}"))["data"]
    assert provider.delete(f"{SERVICES}/{service['serviceId']}").status_code == 204
    assert introspect(provider, old, provider.admin) == {"active": False}
    provider.clock.advance(1)

    again = provider.service(A, "read", "deploy")

    assert again["serviceId"] != service["serviceId"]
    client = provider.service_client(A)
    assert introspect(provider, old, client) == {"active": False}
    assert introspect(provider, old, provider.admin) == {"active": False}
    refused = provider.exchange(agentId=agent, resource=A)
    assert_refused(refused, 403, "SERVICE_NOT_PERMITTED", {"permitted": []})
    provider.replace_policy(good(provider.get(f"{POLICIES}/{policy['id']}")), grants=GRANTS[:1])
    assert introspect(provider, token_for(provider, agent, A), client)["active"] is True


def test_changes_hold_for_the_next_exchange_in_every_process(any_provider, agent):
    """Another replica's changes of grants and lifetimes, and their removal, apply to the next exchange."""
    provider, other = any_provider, any_provider.with_settings()
    (policy,) = good(provider.get(POLICIES))["data"]
    (service,) = good(provider.get(f"{SERVICES}?identifier={A}"))["data"]

    def lifetime(**body):
        return good(provider.exchange(agentId=agent, **body))["expires_in"]

    assert [lifetime(resource=A), lifetime(resource=B), lifetime()] == [3600, 3600, 3600]
    path = f"{SERVICES}/{service['serviceId']}"
    for max_ttl in (60, 30, None):
        good(other.put(path, json={"scopes": service["scopes"], "maxTtl": max_ttl}))
        assert [lifetime(resource=A), lifetime(resource=B), lifetime()] == [max_ttl or 3600, 3600, 3600]

    policy = other.replace_policy(policy, grants=[{"service": B, "scopes": ["deploy"]}])
    assert_refused(
        provider.exchange(agentId=agent, resource=A), 403, "SERVICE_NOT_PERMITTED", {"permitted": [B]}
    )
    assert claims_of(token_for(provider, agent, B))["scope"] == "deploy"
    assert other.delete(path).status_code == 204
    delete(other, policy)
    assert_refused(
        provider.exchange(agentId=agent, resource=B), 403, "SERVICE_NOT_PERMITTED", {"permitted": []}
    )


def test_the_first_exchange_pins(any_provider):
    """An exchange for a service pins an unpinned policy, like any other exchange."""
    any_provider.service(A, "read")
    agent, policy = any_provider.trusted_agent(grants=[{"service": A, "scopes": ["read"]}])

    token = token_for(any_provider, agent, A)

    assert claims_of(token)["aud"] == A
    assert good(any_provider.get(f"{POLICIES}/{policy['id']}"))["repositoryId"] == Job().repository_id


def test_an_expired_grant_ends(provider):
    """An expired policy grants nothing, and its services are not listed as permitted."""
    provider.service(A, "read")
    end = (provider.clock.now + timedelta(minutes=1)).isoformat()
    agent, _ = provider.trusted_agent(grants=[{"service": A, "scopes": ["read"]}], expiresAt=end)
    assert provider.exchange(agentId=agent, resource=A).status_code == 200

    provider.clock.advance(60)

    assert_refused(
        provider.exchange(agentId=agent, resource=A), 403, "SERVICE_NOT_PERMITTED", {"permitted": []}
    )


def test_what_the_one_step_action_has_an_admin_paste(provider):
    """The suggested policy, with a grant filled in, allows this run at this service, and no other run."""
    provider.service("urn:ex:deploy", "deploy", "delete")
    run = {"environment": "production"}
    refused = provider.exchange(provider.github_token(**run))
    suggested = {**refused.json["details"]["suggestedPolicy"], "trustRegistered": True}
    to_fill_in = [{"service": "urn:ex:deploy", "scopes": ["SCOPE-OF-THE-SERVICE"]}]

    unfilled = provider.post(POLICIES, json={**suggested, "grants": to_fill_in})
    assert (unfilled.status_code, unfilled.json["details"]["field"]) == (400, "grants.0.scopes")
    assert "allowed: deploy, delete" in unfilled.json["message"]
    grants = [{"service": "urn:ex:deploy", "scopes": ["deploy"]}]
    assert provider.post(POLICIES, json={**suggested, "grants": grants}).status_code == 201

    agent_id = provider.agent(headers=provider.bootstrap_headers(**run))["agentId"]
    wanted = {"agentId": agent_id, "resource": "urn:ex:deploy"}
    answer = provider.exchange(provider.github_token(**run), **wanted)
    assert (answer.status_code, answer.json["scope"]) == (200, "deploy")
    assert provider.exchange(provider.github_token(**run), **wanted, scope="delete").status_code == 403
    for other in ({}, {**run, "ref": "refs/heads/dev"}, {**run, "repository": "octo-org/other"}):
        assert provider.exchange(provider.github_token(**other), **wanted).status_code == 403
