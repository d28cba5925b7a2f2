"""The service resource, grants of policies, and the clients of services (docs/services.md)."""

import pytest

from kit.policies import listed, post, put
from kit.provider import NOBODY, POLICIES, SERVICES, good
from kit.refusals import assert_invalid, assert_refused

A = "https://a.example.com"
B = "urn:example:b"
SCOPES = [{"name": "read"}, {"name": "deploy:production", "description": "Deploy to production"}]


def create(provider, headers=None, /, **body):
    return provider.post(SERVICES, json={"identifier": A, "scopes": SCOPES, **body}, headers=headers)


def replace(provider, service, if_match=None, **body):
    extra = {} if if_match is None else {"If-Match": if_match}
    path = f"{SERVICES}/{service['serviceId']}"
    return provider.put(path, json={"scopes": SCOPES, **body}, headers=provider.admin | extra)


def remove(provider, service, **extra):
    return provider.delete(f"{SERVICES}/{service['serviceId']}", headers=provider.admin | extra)


def granting(provider, *grants, **policy):
    """Post a policy for a new agent with these grants, one second after the last one."""
    provider.clock.advance(1)
    policy.setdefault("agentId", provider.agent(f"{len(listed(provider))}@octo-org.example")["agentId"])
    listed_grants = [{"service": service, "scopes": list(scopes)} for service, *scopes in grants]
    return post(provider, **{"grants": listed_grants, **policy})


def test_created_service_has_every_field(provider):
    """A created service has an id, a version, a Location, and scopes with their descriptions."""
    answer = create(provider, maxTtl=600)

    assert answer.status_code == 201
    record = dict(answer.json)
    assert answer.headers["Location"] == f"{SERVICES}/{record.pop('serviceId')}"
    assert answer.headers["ETag"] == '"1"'
    assert record == {
        "identifier": A,
        "description": None,
        "scopes": [
            {"name": "read", "description": None},
            {"name": "deploy:production", "description": "Deploy to production"},
        ],
        "maxTtl": 600,
        "createdAt": "2026-11-24T12:00:00Z",
        "updatedAt": "2026-11-24T12:00:00Z",
        "version": 1,
    }
    got = provider.get(answer.headers["Location"])
    assert (got.json, got.headers["ETag"]) == (answer.json, '"1"')


def test_list(provider):
    """Services are listed oldest first, or filtered by their exact identifier."""
    first = create(provider).json
    provider.clock.advance(1)
    second = create(provider, identifier=B).json

    assert good(provider.get(SERVICES)) == {"data": [first, second], "total": 2, "page": 1, "limit": 20}
    assert good(provider.get(f"{SERVICES}?identifier={B}"))["data"] == [second]
    assert good(provider.get(f"{SERVICES}?identifier={A}/"))["data"] == []
    assert good(provider.get(f"{SERVICES}?page=2&limit=1"))["data"] == [second]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "identifier",
            [
                None,
                "",
                1,
                "deploy",
                "http://a.example.com",
                "https://a.example.com?x",
                "https://idp.example.com",
                "https://idp.example.com/api",
                "https://IDP.example.com:443/x",
                "https://token.actions.githubusercontent.com",
                "https://audience.example.com",
                "https://oidc.example.com/",
                "urn:sentryagent:agent:x",
            ],
        ),
        (
            "scopes",
            [
                None,
                [],
                "read",
                ["read"],
                [{"name": ""}],
                [{"name": "a b"}],
                [{"name": "x" * 101}],
                [{"name": "agents:read"}],
                [{"name": "services:write"}],
                [{"name": "a"}, {"name": "a", "description": "x"}],
                [{"name": f"s{number}"} for number in range(101)],
                [{"name": "a", "more": 1}],
                [{"description": "x"}],
            ],
        ),
        ("maxTtl", [0, -1, "60", True, 2**31]),
        ("description", [1, "x" * 1025, "a\x00"]),
        ("more", [1]),
        ("serviceId", [NOBODY]),
    ],
)
def test_what_cannot_be_written(still_provider, field, values):
    """An invalid value is refused by field, and nothing is stored."""
    named = still_provider.with_settings(
        TOKEN_AUDIENCE="https://audience.example.com", OIDC_AUDIENCE="https://oidc.example.com"
    )
    for value in values:
        assert_invalid(create(named, **{field: value}), field)
    assert named.get(SERVICES).json["total"] == 0


def test_an_identifier_is_taken_exactly(provider):
    """The same identifier is a conflict; one that differs in case, slash or port is another service."""
    first = create(provider).json

    assert_refused(create(provider), 409, "SERVICE_ALREADY_EXISTS", {"serviceId": first["serviceId"]})
    for other in ("https://A.example.com", A + "/", A + ":443"):
        assert create(provider, identifier=other).status_code == 201


def test_put_replaces_whole(provider):
    """A PUT accepts the fields of a GET, ignores those the server sets, raises the version and obeys If-Match."""
    service = create(provider, description="x", maxTtl=5).json
    noise = {"serviceId": NOBODY, "createdAt": "x", "updatedAt": 1, "version": 77}

    answer = replace(provider, service, '"1"', **noise)

    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    assert answer.json == {**service, "description": None, "maxTtl": None, "version": 2}
    assert_refused(replace(provider, service, '"1"'), 412, "PRECONDITION_FAILED")
    assert_refused(remove(provider, service, **{"If-Match": '"1"'}), 412, "PRECONDITION_FAILED")
    for other in (B, A + "/", A.upper()):
        assert_invalid(replace(provider, service, identifier=other), "identifier")
    assert good(provider.get(f"{SERVICES}/{service['serviceId']}")) == answer.json
    assert remove(provider, service, **{"If-Match": '"2"'}).status_code == 204


@pytest.mark.parametrize("service_id", [NOBODY, "x", NOBODY.replace("-", "")])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_unknown_service(still_provider, method, service_id):
    """An unknown id is a 404, even if it is not a UUID."""
    body = {"json": {"scopes": SCOPES}} if method == "PUT" else {}
    answer = still_provider.call(method, f"{SERVICES}/{service_id}", **body)
    assert_refused(answer, 404, "SERVICE_NOT_FOUND", {})


def test_changes_are_audited(provider):
    """Creating, changing and deleting a service are recorded with the actor and the changes."""
    service = create(provider).json
    replace(provider, service, scopes=SCOPES[:1])
    remove(provider, service)

    deleted, updated, created = provider.audit()[:3]

    assert [it["action"] for it in (created, updated, deleted)] == [
        "service.created",
        "service.updated",
        "service.deleted",
    ]
    for record in (created, updated, deleted):
        assert record["actor"] == "admin-cli"
        assert (record["details"]["serviceId"], record["details"]["identifier"]) == (service["serviceId"], A)
    assert created["details"]["after"] == service
    assert updated["details"]["changed"].keys() == {"scopes"}
    assert deleted["details"]["before"]["version"] == 2


@pytest.mark.parametrize(
    ("grants", "scopes", "status"),
    [
        ([(A, "read")], ["agents:read"], 201),
        ([(A, "read", "deploy:production"), (B, "read")], ["agents:read"], 201),
        ([(A, "read")], [], 201),
        ([], [], "scopes"),
        ([], ["agents:read"], 201),
        ([(A,)], ["agents:read"], "grants"),
        ([(A, "read", "read")], ["agents:read"], "grants"),
        ([(A, "read"), (A, "deploy:production")], ["agents:read"], "grants"),
        ([(A, "write")], ["agents:read"], "grants"),
        ([(A, "READ")], ["agents:read"], "grants"),
        ([(A, "agents:read")], ["agents:read"], "grants"),
        ([(A + "/", "read")], ["agents:read"], "grants"),
        ([("https://nowhere.example.com", "read")], ["agents:read"], "grants"),
        ([(f"urn:example:{number}", "x") for number in range(21)], ["agents:read"], "grants"),
    ],
)
def test_grants_of_a_policy(provider, grants, scopes, status):
    """Grants name existing services and scopes, each once; only next to grants may `scopes` be empty."""
    create(provider)
    create(provider, identifier=B)

    answer = granting(provider, *grants, scopes=scopes)

    if status == 201:
        expected = [{"service": service, "scopes": names} for service, *names in grants]
        assert (answer.json["grants"], answer.json["scopes"]) == (expected, scopes)
        assert put(provider, answer.json, **answer.json).json["grants"] == expected
    else:
        assert_invalid(answer, status)


@pytest.mark.parametrize(
    "grants",
    [{}, "x", [A], [{"service": A}], [{"scopes": ["read"]}], [{"service": A, "scopes": "read"}], [{}]],
)
def test_malformed_grants(still_provider, grants):
    """Grants of the wrong form are refused by field."""
    assert_invalid(post(still_provider, agentId=NOBODY, grants=grants), "grants")


def test_grants_are_for_agents(provider):
    """A bootstrap policy can have grants only for its derived policies."""
    create(provider)
    grants = [{"service": A, "scopes": ["read"]}]

    assert_invalid(post(provider, grants=grants), "grants")
    assert post(provider, grants=grants, trustRegistered=True, scopes=[]).status_code == 201


def test_a_refused_grant_hides_no_other_refusal(provider):
    """An unknown policy is a 404, even if its new grants are invalid."""
    answer = put(provider, {"id": NOBODY}, agentId=NOBODY, grants=[{"service": A, "scopes": ["x"]}])
    assert_refused(answer, 404, "TRUST_POLICY_NOT_FOUND")


def test_grants_make_no_second_policy(provider):
    """Grants are not conditions: a policy with the same conditions is still a conflict."""
    create(provider)
    policy = granting(provider, (A, "read")).json

    answer = granting(provider, agentId=policy["agentId"])

    assert_refused(answer, 409, "TRUST_POLICY_ALREADY_EXISTS", {"policyId": policy["id"], "version": 1})


def test_who_may_write_policies_may_write_grants(provider):
    """Writing grants needs no scope of services; giving `services:write` takes an admin."""
    create(provider)
    agent = provider.agent()["agentId"]
    provider.policy(agentId=agent, scopes=["policies:write", "services:read", "agents:write"])
    headers = provider.agent_headers(agent)
    other = provider.agent("other@octo-org.example")["agentId"]

    granted = post(
        provider, headers, repository="octo-org/x", agentId=other, grants=[{"service": A, "scopes": ["read"]}]
    )

    assert granted.status_code == 201
    for scope in ("services:write", "policies:write"):
        answer = post(provider, headers, repository="octo-org/y", agentId=other, scopes=[scope])
        assert_refused(answer, 403, "FORBIDDEN", {"requiredScope": scope})
    read = post(provider, headers, repository="octo-org/z", agentId=other, scopes=["services:read"])
    assert read.status_code == 201
    assert_refused(create(provider, headers, identifier=B), 403, "FORBIDDEN")
    narrow = provider.admin_headers("policies:write")
    assert_refused(post(provider, narrow, agentId=other, scopes=["services:write"]), 403, "FORBIDDEN")


def test_derived_policies_inherit_grants(provider):
    """Derived policies get the grants at registration and whenever the bootstrap policy changes."""
    create(provider)
    create(provider, identifier=B)
    bootstrap = provider.policy(trustRegistered=True, grants=[{"service": A, "scopes": ["read"]}])
    provider.clock.advance(1)
    agent = provider.agent(headers=provider.bootstrap_headers())["agentId"]

    def derived():
        (policy,) = listed(provider, f"agentId={agent}")
        return policy["grants"]

    assert derived() == [{"service": A, "scopes": ["read"]}]
    changed = provider.replace_policy(bootstrap, grants=[{"service": B, "scopes": ["read"]}])
    assert derived() == changed["grants"] == [{"service": B, "scopes": ["read"]}]
    assert [it["id"] for it in listed(provider, f"service={B}")] == [
        bootstrap["id"],
        listed(provider, f"agentId={agent}")[0]["id"],
    ]
    assert listed(provider, f"service={A}") == []


def test_a_service_in_use_stays(provider):
    """Disabled and derived policies count, and clients, too; the first ten policies are named."""
    service = create(provider).json
    policies = [
        granting(provider, (A, "read"), repository=f"octo-org/r{number}", enabled=number % 2 == 0).json["id"]
        for number in range(11)
    ]
    provider.clock.advance(1)
    bootstrap = provider.policy(trustRegistered=True, grants=[{"service": A, "scopes": ["read"]}])
    provider.agent(headers=provider.bootstrap_headers())
    provider.service_client(A)

    refused = assert_refused(remove(provider, service), 409, "SERVICE_IN_USE")

    assert refused["details"] == {"policies": 13, "policyIds": policies[:10], "clients": 1}
    assert refused["message"].startswith("The service is in use by 13 policies and 1 client; ")
    for policy in (*policies, bootstrap["id"]):
        assert provider.delete(f"{POLICIES}/{policy}").status_code == 204
    details = {"policies": 0, "policyIds": [], "clients": 1}
    refused = assert_refused(remove(provider, service), 409, "SERVICE_IN_USE", details)
    assert refused["message"].startswith("The service is in use by 1 client; ")


def test_a_scope_in_use_stays(provider):
    """A PUT may add scopes and drop those that no policy grants, even if the service has clients."""
    service = create(provider).json
    policy = granting(provider, (A, "read"), enabled=False).json
    provider.service_client(A)

    assert replace(provider, service, scopes=[{"name": "read"}, {"name": "new"}]).status_code == 200
    details = {"policies": 1, "policyIds": [policy["id"]], "clients": 0}
    assert_refused(replace(provider, service, scopes=[{"name": "READ"}]), 409, "SERVICE_IN_USE", details)
    provider.replace_policy(policy, grants=[])
    assert replace(provider, service, scopes=[{"name": "READ"}]).status_code == 200
