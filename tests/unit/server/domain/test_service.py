"""Services: their identifiers, their scopes, and the policies that grant them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from kit import records
from sentryagent_idp.domain import explanation
from sentryagent_idp.domain.service import (
    OwnNames,
    ServiceGrant,
    grant_problem,
    identifier_problem,
    scopes_problem,
)
from sentryagent_idp.domain.suggestion import nearest_first, suggested_policy
from sentryagent_idp.domain.trust_policy import (
    Allowed,
    DenialReason,
    Denied,
    ScopeRefused,
    conditions_key,
    decide,
    granted_scopes,
    permitted_services,
)
from sentryagent_idp.runtime.addresses import is_loopback

A = "https://a.example.com"
B = "https://b.example.com"
OWN = OwnNames(
    "https://idp.example.com/v2",
    ("https://api.example.com/agents", "sentryagent", "https://token.actions.githubusercontent.com"),
)


@pytest.mark.parametrize(
    "identifier",
    [
        A,
        A + "/",
        A + ":443",
        "https://A.example.com",
        "https://a.example.com:8443/v1/x%20y;z=1,2/~me@home//",
        "https://a",
        "https://a_b.example.com.",
        "https://192.0.2.1",
        "https://[2001:db8::1]:8443/x",
        "http://localhost",
        "http://127.0.0.1:3000/x",
        "http://[::1]:3000",
        "urn:example:deploy",
        "urn:example:a/b%2F@c",
        "https://" + "a" * 247,
    ],
)
def test_good_identifier(identifier):
    """An identifier is an absolute https URI, http on loopback, or a URN (RFC 3986, RFC 8141)."""
    assert identifier_problem(identifier, is_loopback) is None


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "a.example.com",
        "//a.example.com",
        "/deploy",
        "HTTPS://a.example.com",
        "ftp://a.example.com",
        "https:a.example.com",
        "https:///x",
        "https://",
        "https://a.example.com?",
        "https://a.example.com/?x=1",
        "https://a.example.com#",
        "https://a.example.com/#x",
        "https://me@a.example.com",
        "https://me:pw@a.example.com",
        "https://a.example.com:",
        "https://a.example.com:0",
        "https://a.example.com:65536",
        "https://a.example.com:x",
        "https://a%2eexample.com",
        "https://a.example.com\\@b.example.com",
        "https://a.example.com/ x",
        "https://a.example.com\n",
        "https://a.example.com/%zz",
        "https://a.example.com/é",
        "https://ä.example.com",
        "https://[::x]",
        "https://[192.0.2.1]",
        "http://a.example.com",
        "http://localhost.example.com",
        "urn:x",
        "urn:example:",
        "urn:-a:b",
        "URN:example:deploy",
        "urn:example:x?+y",
        "urn:example:x#y",
        "https://" + "a" * 248,
    ],
)
def test_no_identifier(identifier):
    """An identifier with a user, a query, a fragment or another scheme, or that is too long, is refused."""
    assert identifier_problem(identifier, is_loopback)


@pytest.mark.parametrize(
    ("identifier", "is_own"),
    [
        ("https://idp.example.com", True),
        ("https://idp.example.com/other", True),
        ("https://IDP.Example.com:443/", True),
        ("https://idp.example.com./x", True),
        ("https://idp.example.com:8443", False),
        ("https://idp.example.com.example.org", False),
        ("https://xidp.example.com", False),
        ("https://api.example.com/agents", True),
        ("https://API.example.com:443/agents/", True),
        ("https://api.example.com/Agents", False),
        ("https://api.example.com", False),
        ("https://token.actions.githubusercontent.com", True),
        ("https://token.actions.githubusercontent.com/", True),
        ("https://token.actions.githubusercontent.com/acme", False),
        ("urn:sentryagent:agent:x", True),
        ("urn:SentryAgent:x", True),
        ("urn:sentryagentx:y", False),
        (A, False),
    ],
)
def test_names_of_the_provider(identifier, is_own):
    """A service cannot take a name of the provider or GitHub, in any spelling that a verifier might accept."""
    assert bool(OWN.problem(identifier)) is is_own


@pytest.mark.parametrize(
    ("names", "is_good"),
    [
        (["deploy:production"], True),
        (["a", "A", "!~[]", "x" * 100], True),
        (["agents:readx", "agents", "agents:delete"], True),
        (["a", "b", "a"], False),
        ([""], False),
        (["x" * 101], False),
        (["a b"], False),
        (['a"b'], False),
        (["a\\b"], False),
        (["a\n"], False),
        (["é"], False),
        (["agents:read"], False),
        (["tokens:read"], False),
        (["audit:read"], False),
        (["policies:write"], False),
        (["services:write"], False),
        (["ok", "Agents:Write"], False),
    ],
)
def test_scopes_of_a_service(names, is_good):
    """Scopes are distinct scope tokens (RFC 6749) that do not look like the provider's own."""
    assert (scopes_problem(names) is None) is is_good


def test_what_was_issued_before_was_for_another(now):
    """A service that was created again under its old identifier accepts no earlier token, to the second."""
    service = records.service(now.replace(microsecond=900_000), identifier=A)
    second = int(now.timestamp())

    assert [service.accepts(A, second + it) for it in (-1, 0, 1)] == [False, True, True]
    assert not service.accepts(A + "/", second)
    assert not service.accepts(A.upper(), second)


@pytest.mark.parametrize(
    ("grants", "field"),
    [
        ([], None),
        ([ServiceGrant(A, ("read",))], None),
        ([ServiceGrant(A, ("read", "deploy"))], None),
        ([ServiceGrant(A, ("read", "write"))], "grants.0.scopes"),
        ([ServiceGrant(A, ("Read",))], "grants.0.scopes"),
        ([ServiceGrant(A, ("read",)), ServiceGrant(B, ("read",))], "grants.1.service"),
        ([ServiceGrant(A + "/", ("read",))], "grants.0.service"),
    ],
)
def test_grants_of_what_exists(now, grants, field):
    """The error names the first field with an unknown service or scope."""
    problem = grant_problem(grants, [records.service(now, identifier=A)])
    assert (problem and problem[0]) == field


TO_A = (ServiceGrant(A, ("read", "deploy")),)
TO_B = (ServiceGrant(B, ("read",)),)
GRANTED = DenialReason.SERVICE_NOT_PERMITTED
VIOLATION = DenialReason.TRUST_POLICY_VIOLATION
BRANCH = DenialReason.BRANCH_NOT_PERMITTED
CHANGED = DenialReason.IDENTITY_CHANGED
OTHER = UUID(int=2)


def _policies(now, agent, rows):
    """Make policies of the run's repository for the agent, each a minute newer than the one before."""
    return [
        records.policy(now + timedelta(minutes=age), **{"repository": "acme/api", "agent_id": agent, **row})
        for age, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("rows", "service", "outcome"),
    [
        ([{"grants": TO_A}], A, 0),
        ([{"grants": TO_A + TO_B}], B, 0),
        ([{"grants": TO_A}], None, 0),
        # The identifier must be equal, including case, slash and port.
        ([{"grants": TO_A}], B, GRANTED),
        ([{"grants": TO_A}], A + "/", GRANTED),
        ([{"grants": TO_A}], A + ":443", GRANTED),
        ([{"grants": TO_A}], "https://A.example.com", GRANTED),
        ([], A, GRANTED),
        ([{}], A, GRANTED),
        # Candidates are policies for this agent that are enabled, not expired, and grant the service.
        ([{"grants": TO_A, "agent_id": OTHER}], A, GRANTED),
        ([{"grants": TO_A, "agent_id": None, "trust_registered": True}], A, GRANTED),
        ([{"grants": TO_A, "enabled": False}], A, GRANTED),
        ([{"grants": TO_A, "expires_at": datetime(2026, 1, 1).astimezone()}], A, GRANTED),
        ([{"grants": TO_A, "repository": "acme/other"}], A, GRANTED),
        # The most specific of the granting policies decides, whatever other policies exist.
        ([{"grants": TO_A}, {"branch": "main", "workflow": "ci.yml"}], A, 0),
        ([{"grants": TO_A}, {"branch": "main", "workflow": "ci.yml"}], None, 1),
        ([{"grants": TO_A}, {"branch": "main", "grants": TO_A}], A, 1),
        # A granting policy that fails is reported as usual, not hidden by one that matches but grants nothing.
        ([{"grants": TO_A, "branch": "dev"}, {}], A, BRANCH),
        ([{"grants": TO_A, "environment": "production"}, {}], A, VIOLATION),
        ([{"grants": TO_B, "branch": "dev"}], A, GRANTED),
        # A repository name with different ids is checked first (A8).
        ([{"grants": TO_B, "repository_id": "999"}], A, CHANGED),
        ([{"repository_id": "999", "agent_id": OTHER}, {"grants": TO_A}], A, CHANGED),
    ],
)
def test_decision_about_a_service(make_run, agent, now, rows, service, outcome):
    """Only policies that grant the service are candidates; rows have the index of the deciding policy or the reason."""
    policies = _policies(now, agent, rows)
    decision = decide(policies, make_run(), agent, now, service=service)

    if isinstance(outcome, int):
        assert isinstance(decision, Allowed)
        assert policies.index(decision.policy) == outcome
    else:
        assert isinstance(decision, Denied)
        assert decision.reason is outcome


def test_an_inactive_agent_is_refused_as_ever(make_run, agent, now):
    """An inactive agent is refused before grants are considered."""
    for rows in ([], [{"grants": TO_A}]):
        decision = decide(
            _policies(now, agent, rows), make_run(), agent, now, agent_is_active=False, service=A
        )
        assert (decision.reason, decision.agent_is_active) == (VIOLATION, False)


def test_permitted_services(make_run, agent, now):
    """The services that live policies for the agent grant, without duplicates."""
    rows = [
        {"grants": TO_B, "branch": "x"},
        {"grants": TO_A + TO_B, "branch": "y"},
        {"grants": (ServiceGrant("urn:ex:off", ("x",)),), "enabled": False},
        {"grants": (ServiceGrant("urn:ex:other", ("x",)),), "agent_id": OTHER},
    ]
    decision = decide(_policies(now, agent, rows), make_run(), agent, now, service="urn:ex:none")

    assert permitted_services(decision.evaluations, agent, now) == (A, B)
    assert explanation.cause(decision, agent) == "service_not_permitted"
    assert explanation.message(decision, make_run(), agent).endswith(
        f"; request {A} or {B}, or have an admin add the service to the `grants` of a policy."
    )


def test_no_other_service_to_ask_for(make_run, agent, now):
    """Without any grant the message refers to an admin, and to no details: RFC 8693's format has none."""
    decision = decide(_policies(now, agent, [{}]), make_run(), agent, now, service="urn:ex:none")

    text = explanation.message(decision, make_run(), agent)

    assert text.endswith(
        f"the agent {agent} this service; have an admin add the service to the `grants` of a policy."
    )


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"grants": TO_A, "enabled": False}],
        [{"grants": TO_A, "expires_at": datetime(2026, 11, 24, 12, tzinfo=UTC)}],
        [{"agent_id": OTHER}],
    ],
)
def test_no_live_policy_for_the_agent(make_run, agent, now, rows):
    """The cause is not a missing grant: no policy counts for the agent at all."""
    decision = decide(_policies(now, agent, rows), make_run(), agent, now, service=A)

    assert explanation.message(decision, make_run(), agent) == (
        f"acme/api has no trust policy for the agent {agent} that is enabled and has not expired; have an admin add "
        "one that grants the service, or enable or extend one."
    )


def test_grants_are_no_condition(agent, now):
    """Grants do not distinguish policies with the same conditions, nor change which one is more specific."""
    plain, granting = _policies(now, agent, [{}, {"grants": TO_A}])
    assert conditions_key(plain) == conditions_key(granting)


@pytest.mark.parametrize(
    ("service", "requested", "granted"),
    [
        (A, None, ("read", "deploy")),
        (A, ("deploy",), ("deploy",)),
        (A, ("deploy", "read", "deploy"), ("deploy", "read")),
        (A, ("Deploy",), ScopeRefused("Deploy", ("read", "deploy"))),
        # The provider's scopes are not valid at a service, nor a service's at the provider.
        (A, ("agents:read",), ScopeRefused("agents:read", ("read", "deploy"))),
        (None, ("deploy",), ScopeRefused("deploy", ("agents:write",))),
        (None, None, ("agents:write",)),
        (None, ("agents:read",), ("agents:read",)),
    ],
)
def test_scopes_at_a_service(agent, now, service, requested, granted):
    """At a service the policy's grant applies, or the requested part of it."""
    (policy,) = _policies(now, agent, [{"grants": TO_A, "scopes": ("agents:write",)}])
    assert granted_scopes(policy, requested, service) == granted


@pytest.mark.parametrize("requested", [None, ("agents:read",)])
def test_a_policy_for_services_alone(agent, now, requested):
    """A policy without scopes of its own grants nothing at the provider's API."""
    (policy,) = _policies(now, agent, [{"grants": TO_A, "scopes": ()}])

    refused = granted_scopes(policy, requested)

    assert (refused.permitted, refused.requested) == ((), requested and requested[0])
    assert granted_scopes(policy, None, A) == ("read", "deploy")


def test_the_nearest_policy_is_one_that_grants(make_run, agent, now):
    """The explanation is about the policy that grants the service, and the suggestion keeps its grants."""
    rows = [{}, {"grants": TO_A, "scopes": (), "branch": "dev", "environment": "production"}]
    policies = _policies(now, agent, rows)
    run = make_run(environment="staging")

    denied = decide(policies, run, agent, now, service=A)

    assert nearest_first(denied.evaluations, agent)[0].policy == policies[1]
    suggested = suggested_policy(denied, run, agent)
    assert suggested["grants"] == [{"service": A, "scopes": ["read", "deploy"]}]
    assert (suggested["branch"], suggested["environment"]) == ("main", "staging")
    assert list(suggested["scopes"]) == []
    by_id = {it["policyId"]: it["failed"] for it in explanation.trace(denied.evaluations)}
    (failed,) = by_id[str(policies[0].id)]
    assert (failed["condition"], failed["expected"], failed["actual"]) == ("grants", [], A)


def test_grants_of_another_agent_are_not_suggested(make_run, agent, now):
    """A suggestion copies neither the scopes nor the grants of another agent's policy."""
    policies = _policies(now, OTHER, [{"grants": TO_A, "scopes": ("tokens:read",)}])

    suggested = suggested_policy(decide(policies, make_run(), agent, now), make_run(), agent)

    assert suggested is not None
    assert not {"grants", "scopes"} & suggested.keys()
