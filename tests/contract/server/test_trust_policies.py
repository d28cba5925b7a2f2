"""The trust-policy resource, field by field (docs/trust-policies.md)."""

from operator import itemgetter

import pytest

from kit.policies import delete, get, listed, post, put
from kit.provider import NOBODY, POLICIES, REPOSITORY
from kit.refusals import assert_invalid, assert_refused
from kit.tokens import claims_of, token_of

CALLED = "octo-org/automation/.github/workflows/deploy.yml@refs/heads/main"


def test_created_policy_has_every_field(provider):
    """A policy with only a repository gets the defaults, an id, a version and a Location."""
    answer = post(provider)

    assert answer.status_code == 201
    record = dict(answer.json)
    assert answer.headers["Location"] == f"{POLICIES}/{record.pop('id')}"
    assert answer.headers["ETag"] == '"1"'
    assert record == {
        "provider": "github",
        "issuer": "https://token.actions.githubusercontent.com",
        "repository": REPOSITORY,
        "repositoryId": None,
        "repositoryOwnerId": None,
        "agentId": None,
        "branch": None,
        "tag": None,
        "environment": None,
        "workflow": None,
        "calledWorkflow": None,
        "actorIds": None,
        "runnerEnvironment": None,
        "visibility": None,
        "refProtected": None,
        "properties": None,
        "events": None,
        "scopes": ["agents:read"],
        "maxTtl": None,
        "grants": [],
        "trustRegistered": False,
        "derivedFrom": None,
        "enabled": True,
        "expiresAt": None,
        "description": None,
        "createdAt": "2026-11-24T12:00:00Z",
        "updatedAt": "2026-11-24T12:00:00Z",
        "lastUsedAt": None,
        "version": 1,
    }
    assert get(provider, answer.json["id"]).json == answer.json


def test_created_policy_keeps_what_was_written(provider):
    """Every field that an admin may set is returned as written."""
    body = {
        "provider": "github",
        "repository": "Octo-Org/Hello-Agent",
        "branch": "release/**",
        "agentId": provider.agent()["agentId"],
        "environment": "Production ü",
        "workflow": "deploy.yaml",
        "calledWorkflow": CALLED,
        "actorIds": ["1", "22"],
        "runnerEnvironment": "self-hosted",
        "visibility": "internal",
        "refProtected": True,
        "properties": {"team": ["core", "web"], "Cost_center-$#": ["ü 1"]},
        "events": ["push", "workflow_dispatch"],
        "repositoryId": "123",
        "repositoryOwnerId": "456",
        "scopes": [
            "agents:read",
            "agents:write",
            "tokens:read",
            "audit:read",
            "policies:read",
            "policies:write",
        ],
        "maxTtl": 2**31 - 1,
        "enabled": False,
        "expiresAt": "2027-01-31T12:00:00Z",
        "description": "line\none",
    }

    answer = post(provider, **body)

    assert answer.status_code == 201, answer.text
    assert {name: answer.json[name] for name in body} == body


def test_agent_must_be_there_and_not_decommissioned(provider):
    """A policy's agent must exist; it may be suspended but not decommissioned."""
    agent = provider.agent()["agentId"]
    assert_refused(post(provider, agentId=NOBODY), 404, "AGENT_NOT_FOUND", {})
    provider.patch(f"/api/v1/agents/{agent}", json={"status": "suspended"})
    policy = post(provider, agentId=agent).json
    provider.delete(f"/api/v1/agents/{agent}")

    assert_refused(post(provider, agentId=agent, branch="x"), 409, "AGENT_DECOMMISSIONED", {})
    assert_refused(put(provider, policy, agentId=NOBODY), 404, "AGENT_NOT_FOUND", {})
    assert_refused(put(provider, policy, agentId=agent), 409, "AGENT_DECOMMISSIONED", {})


@pytest.mark.parametrize("scope", ["agents:write", "audit:read", "policies:read", "policies:write"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_nobody_gives_away_what_they_do_not_hold(provider, scope, method):
    """Besides agents:read and tokens:read, authors can give only their own scopes."""
    agent = provider.agent()["agentId"]
    policy = provider.policy(agentId=agent)
    poor = provider.admin_headers("policies:write")
    rich = provider.admin_headers("policies:write", scope)
    held = {"policies:read", "policies:write"}

    def write(headers, scopes):
        if method == "PUT":
            return put(provider, policy, headers, agentId=agent, scopes=scopes)
        return post(provider, headers, agentId=agent, scopes=scopes, branch=scope.replace(":", "-"))

    if scope not in held:
        assert_refused(write(poor, ["agents:read", scope]), 403, "FORBIDDEN", {"requiredScope": scope})
    assert write(rich, ["agents:read", scope]).status_code in {200, 201}


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_only_an_admin_gives_policies_write(provider, method):
    """An agent with policies:write cannot give it to another one; only an admin can."""
    agent, policy = provider.trusted_agent(scopes=["policies:write"])
    headers = provider.agent_headers(agent)

    def write(headers, scopes):
        if method == "PUT":
            return put(provider, policy, headers, agentId=agent, scopes=scopes)
        return post(provider, headers, agentId=agent, scopes=scopes, branch="dev")

    assert_refused(write(headers, ["policies:write"]), 403, "FORBIDDEN", {"requiredScope": "policies:write"})
    assert write(headers, ["policies:read"]).status_code in {200, 201}
    assert write(provider.admin_headers("policies:write"), ["policies:write"]).status_code in {200, 201, 409}


def test_writing_a_bootstrap_policy_needs_what_it_gives(provider):
    """A policy without agentId gives agents:write, whatever its scopes: POST and PUT need it, DELETE does not."""
    agent, own = provider.trusted_agent(branch="dev")
    poor = provider.admin_headers("policies:write", "agents:read")
    needed = {"requiredScope": "agents:write"}
    assert_refused(post(provider, poor), 403, "FORBIDDEN", needed)
    assert_refused(post(provider, poor, trustRegistered=True, enabled=False), 403, "FORBIDDEN", needed)
    assert_refused(put(provider, own, poor, branch="dev"), 403, "FORBIDDEN", needed)
    bootstrap = post(provider, provider.admin_headers("policies:write", "agents:write")).json
    assert_refused(put(provider, bootstrap, poor, branch="main"), 403, "FORBIDDEN", needed)

    assert sorted(listed(provider), key=itemgetter("id")) == sorted([own, bootstrap], key=itemgetter("id"))
    assert post(provider, poor, agentId=agent, branch="main").status_code == 201
    deleted = provider.http.delete(f"{POLICIES}/{bootstrap['id']}", headers=poor)
    assert deleted.status_code == 204


def test_an_agent_that_writes_policies_registers_none(provider):
    """An agent with policies:write cannot get agents:write by a bootstrap policy for its repository (C6)."""
    agent, _ = provider.trusted_agent(scopes=["policies:read", "policies:write"])
    headers = provider.agent_headers(agent)

    assert_refused(post(provider, headers), 403, "FORBIDDEN", {"requiredScope": "agents:write"})

    assert_refused(provider.exchange(), 403, "TRUST_POLICY_VIOLATION")


def test_writing_policies_includes_reading_them(provider):
    """A write scope includes its read scope."""
    policy = post(provider).json
    writer = provider.admin_headers("policies:write")

    assert provider.http.get(POLICIES, headers=writer).json["data"] == [policy]


def test_freely_granted_scopes(provider):
    """Any author can give `agents:read` and `tokens:read`."""
    agent = provider.agent()["agentId"]

    answer = post(
        provider,
        provider.admin_headers("policies:write"),
        agentId=agent,
        scopes=["agents:read", "tokens:read"],
    )

    assert answer.status_code == 201


# --- uniqueness


@pytest.mark.parametrize(
    "same",
    [
        {"enabled": False},
        {"expiresAt": "2027-01-01T00:00:00Z"},
        {"description": "other"},
        {"scopes": ["tokens:read"]},
        {"maxTtl": 60},
        {"trustRegistered": True},
        {"repositoryId": "1", "repositoryOwnerId": "2"},
        {"repository": "OCTO-ORG/hello-AGENT"},
        {"environment": "PROD"},
        {"events": ["schedule", "push"]},
        {"actorIds": ["2", "1", "1"]},
        {"properties": {"tier": ["1"], "team": ["web", "core", "web"]}},
    ],
)
def test_same_agent_repository_and_conditions_are_one_policy(provider, same):
    """Other fields, the order of values, and the case of repository and environment make no second policy."""
    conditions = {
        "branch": "main",
        "environment": "prod",
        "events": ["push", "schedule"],
        "actorIds": ["1", "2"],
        "properties": {"team": ["core", "web"], "tier": ["1"]},
    }
    first = put(provider, post(provider, **conditions).json, **conditions).json

    answer = post(provider, **{**conditions, **same})

    assert_refused(answer, 409, "TRUST_POLICY_ALREADY_EXISTS", {"policyId": first["id"], "version": 2})
    assert len(listed(provider)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"branch": "Main"},
        {"branch": None, "tag": "main"},
        {"branch": "m*"},
        {"environment": "prod2"},
        {"workflow": "ci.yml"},
        {"calledWorkflow": CALLED},
        {"actorIds": ["1"]},
        {"runnerEnvironment": "self-hosted"},
        {"visibility": "public"},
        {"refProtected": True},
        {"properties": {"team": ["core"]}},
        {"events": ["push"]},
        {"repository": "octo-org/other"},
    ],
)
def test_other_conditions_are_another_policy(provider, other):
    """A policy that differs in any one condition is another policy."""
    post(provider, branch="main", environment="prod")

    assert post(provider, **{"branch": "main", "environment": "prod", **other}).status_code == 201


def test_put_keeps_uniqueness(provider):
    """A PUT that would make a policy equal to another is a 409 and changes nothing."""
    first = post(provider, branch="main").json
    other = post(provider, branch="dev").json

    answer = put(provider, other, branch="main")

    assert_refused(answer, 409, "TRUST_POLICY_ALREADY_EXISTS", {"policyId": first["id"], "version": 1})
    assert get(provider, other["id"]).json == other


def test_delete_frees_the_conditions(provider):
    """After a DELETE the same conditions can be written again."""
    policy = post(provider, branch="main").json

    answer = delete(provider, policy)

    assert (answer.status_code, answer.data) == (204, b"")
    assert get(provider, policy["id"]).status_code == 404
    assert post(provider, branch="main").status_code == 201


# --- PUT


def test_put_replaces_whole(provider):
    """A PUT resets omitted fields to their defaults: no old condition survives unseen (B25)."""
    policy = post(
        provider,
        branch="main",
        environment="prod",
        maxTtl=60,
        description="x",
        scopes=["tokens:read"],
        enabled=False,
    ).json
    provider.clock.advance(5)

    answer = put(provider, policy, workflow="ci.yml")

    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"2"'
    assert answer.json == {
        **policy,
        "branch": None,
        "environment": None,
        "maxTtl": None,
        "description": None,
        "scopes": ["agents:read"],
        "enabled": True,
        "workflow": "ci.yml",
        "version": 2,
        "updatedAt": "2026-11-24T12:00:05Z",
    }


def test_put_of_what_a_get_gave(provider):
    """Fields that the server sets may be sent in a PUT and are ignored, even if they were changed."""
    policy = post(provider, branch="main").json
    changed = {
        **policy,
        "issuer": "https://octo-evil.example",
        "createdAt": 5,
        "updatedAt": "x",
        "version": 99,
        "lastUsedAt": "2020-01-01T00:00:00Z",
        "derivedFrom": NOBODY,
    }

    answer = put(provider, policy, **changed)

    assert answer.status_code == 200, answer.text
    assert answer.json == {**policy, "version": 2}


def test_put_keeps_its_id(provider):
    """An id other than the path's is refused; the same id in another letter case is accepted."""
    policy = post(provider).json

    assert_invalid(put(provider, policy, id=NOBODY), "id")
    assert put(provider, policy, id=policy["id"].upper()).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    ("if_match", "status"),
    [
        (None, 200),
        ("*", 200),
        ('"2"', 200),
        ('"1", "2"', 200),
        ('"1"', 412),
        ('W/"2"', 412),
        ("2", 412),
        ('"x"', 412),
        ("", 412),
        (f'"{"9" * 5000}"', 412),
        ('"0002x"', 412),
    ],
)
def test_if_match(provider, method, if_match, status):
    """With If-Match a policy is changed or deleted only in the version its author read (RFC 9110, 13.1.1)."""
    policy = put(provider, post(provider).json, description="second").json

    if method == "PUT":
        answer = put(provider, policy, if_match=if_match, description="third")
    else:
        headers = provider.admin if if_match is None else {**provider.admin, "If-Match": if_match}
        answer = provider.http.delete(f"{POLICIES}/{policy['id']}", headers=headers)

    assert answer.status_code == (204 if (method, status) == ("DELETE", 200) else status)
    if status == 412:
        assert_refused(answer, 412, "PRECONDITION_FAILED", {})
        assert get(provider, policy["id"]).json == policy


def test_put_keeps_the_ids_of_its_repository(provider):
    """A PUT without ids keeps them; a new repository starts unpinned; null removes only that pin."""
    policy = post(provider, repositoryId="1", repositoryOwnerId="2").json

    def ids(**body):
        answer = put(provider, policy, **body)
        return answer.json["repositoryId"], answer.json["repositoryOwnerId"]

    assert ids() == ("1", "2")
    assert ids(repository="OCTO-ORG/Hello-Agent") == ("1", "2")
    assert ids(repositoryId=None) == (None, "2")
    assert ids(repositoryId="3", repositoryOwnerId=None) == ("3", None)
    assert ids(repository="octo-org/other") == (None, None)


def test_removed_pin_is_audited(provider):
    """Removing a pin is recorded with its old value and the actor."""
    policy = post(provider, repositoryId="1", repositoryOwnerId="2").json

    answer = put(provider, policy, repositoryId=None)

    (record,) = provider.audit(action="policy.updated")
    assert record["details"]["changed"] == {"repositoryId": {"before": "1", "after": None}}
    token = token_of(provider.admin)
    assert record["actor"] == claims_of(token)["sub"]
    assert (record["policyId"], record["policyVersion"]) == (policy["id"], 2)
    assert record["requestId"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("other", [{"enabled": False}, {"expiresAt": "2026-11-24T12:00:00Z"}, {}])
def test_a_new_policy_takes_the_ids_of_a_live_one(provider, other):
    """A policy without ids takes those of a live policy of the same name."""
    post(provider, branch="main", repositoryId="1", repositoryOwnerId="2", **other)

    taken = post(provider, repository="Octo-Org/hello-agent").json

    expected = (None, None) if other else ("1", "2")
    assert (taken["repositoryId"], taken["repositoryOwnerId"]) == expected


def test_issuer_is_the_configured_one_at_the_time_of_writing(provider):
    """A policy never matches a token of another issuer; a PUT moves it only if it names the issuer."""
    policy = provider.policy()
    moved = provider.with_settings(GITHUB_ISSUER="https://github.example.com/_services/token")
    moved.github = type(provider.github)(moved.settings.github_issuers[0], ring=provider.github.ring)
    token = moved.github_token()
    assert moved.exchange(token).status_code == 403

    assert moved.replace_policy(policy)["issuer"] == policy["issuer"]
    issuer = moved.settings.github_issuers[0]
    answer = moved.put(f"{POLICIES}/{policy['id']}", json={"repository": REPOSITORY, "issuer": issuer})

    assert answer.json["issuer"] == moved.settings.github_issuers[0]
    assert moved.exchange(token).status_code == 200
    assert provider.exchange().status_code == 403


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_unknown_policy(provider, method):
    """An unknown policy is a 404 with the resource's own code."""
    body = {"repository": REPOSITORY} if method == "PUT" else None

    answer = provider.call(method, f"{POLICIES}/{NOBODY}", json=body)

    assert_refused(answer, 404, "TRUST_POLICY_NOT_FOUND", {})


# --- lists


def test_list_filters(provider):
    """A list can be filtered by provider, repository (case-insensitive) and agent."""
    agent = provider.agent()["agentId"]
    first = post(provider).json["id"]
    second = post(provider, agentId=agent).json["id"]
    third = post(provider, repository="octo-org/other").json["id"]

    def ids(query):
        return {it["id"] for it in listed(provider, query)}

    assert ids("") == ids("provider=github") == {first, second, third}
    assert ids("provider=gitlab") == set()
    assert ids("repository=OCTO-org/hello-agent") == {first, second}
    assert ids(f"agentId={agent}") == {second}
    assert ids(f"agentId={agent}&repository=octo-org/other") == set()
    assert_invalid(provider.get(f"{POLICIES}?agentId=x"), "agentId")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("issuer=https://token.actions.githubusercontent.com", "abc"),
        ("owner=octo-ORG", "ab"),
        ("repositoryId=74", "b"),
        ("bootstrap=true", "ac"),
        ("bootstrap=false", "b"),
        ("enabled=false", "c"),
        ("expired=true", "c"),
        ("expired=false", "ab"),
        (f"derivedFrom={NOBODY}", ""),
        ("unusedSince=2026-11-24T11:00:00Z", ""),
        ("unusedSince=2026-11-25T00:00:00Z", "abc"),
        ("expiresBefore=2026-11-25T00:00:00Z", "c"),
        ("search=nightly", "b"),
        ("search=OTHER", "c"),
        ("owner=octo-org&bootstrap=true", "a"),
    ],
)
def test_each_filter_of_the_list(provider, query, found):
    """Each filter of the list, by its name in the API."""
    agent = provider.agent()["agentId"]
    expired = {"expiresAt": "2026-11-24T11:30:00Z", "enabled": False}
    policies = [
        post(provider),
        post(provider, agentId=agent, repositoryId="74", description="The Nightly job"),
        post(provider, repository="else/other", **expired),
    ]
    names = {answer.json["id"]: name for answer, name in zip(policies, "abc", strict=True)}

    assert "".join(sorted(names[it["id"]] for it in listed(provider, query))) == found


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("bootstrap=1", "bootstrap"),
        ("enabled=yes", "enabled"),
        ("expired=", "expired"),
        ("derivedFrom=x", "derivedFrom"),
        ("unusedSince=2026-11-24", "unusedSince"),
        ("expiresBefore=soon", "expiresBefore"),
    ],
)
def test_wrong_filters_of_the_list(still_provider, query, field):
    """An invalid filter is refused by name, never ignored."""
    assert_invalid(still_provider.get(f"{POLICIES}?{query}"), field)


# --- the audit of changes


def test_changes_are_audited(provider):
    """Creating, replacing and deleting are recorded with the policy, its version, and its state or changes."""
    policy = post(provider, branch="main").json
    put(provider, policy, branch="dev")
    delete(provider, policy)

    deleted, updated, created = provider.audit(policyId=policy["id"])

    assert [it["action"] for it in (created, updated, deleted)] == [
        "policy.created",
        "policy.updated",
        "policy.deleted",
    ]
    assert [it["policyVersion"] for it in (created, updated, deleted)] == [1, 2, 2]
    assert created["details"]["after"] == policy
    assert updated["details"]["changed"] == {"branch": {"before": "main", "after": "dev"}}
    assert deleted["details"]["before"]["branch"] == "dev"
    assert {it["repository"] for it in (created, updated, deleted)} == {REPOSITORY}
