"""The root action, one scenario per test."""

import json
import shlex

import httpx
import pytest

EXCHANGE, CREATE, REVOKE = "POST /oidc/token", "POST /agents", "POST /token/revoke"


def test_agent_is_registered_and_its_token_issued(world):
    """Bootstrap exchange, registration, revocation, then the agent's exchange with a new ID token."""
    bootstrap, own = "b" * 30, "o" * 30
    world.script.on(
        EXCHANGE, world.token("agents:write", access_token=bootstrap), world.token(access_token=own)
    )
    world.script.on(CREATE, world.answer(status=201, json=world.agent()))
    world.script.on(REVOKE, world.answer(json={}))
    outcome = world.run("toolkit", agent_name="bot@example.com", expires_in="600")
    assert world.script.calls() == ["ID-TOKEN", EXCHANGE, CREATE, REVOKE, "ID-TOKEN", EXCHANGE]
    first, second = (request.body for request in world.script.made(EXCHANGE))
    assert first["token"] != second["token"]
    assert (first.get("agentId"), second["agentId"], second["expiresIn"]) == (None, world.agent_id, 600)
    assert world.script.made(REVOKE)[0].authorization == f"Bearer {bootstrap}"
    assert outcome.outputs == {
        "agent-id": world.agent_id,
        "created": "true",
        "access-token": own,
        "expires-at": "2027-01-15T09:00:00Z",
        "expires-in": "3600",
        "scope": "agents:read",
        "authenticated": "true",
    }
    assert outcome.state["access_token"] == own


def test_known_agent_needs_no_registration(world):
    """With an agent id the action only issues a token."""
    world.script.on(EXCHANGE, world.token())
    outcome = world.run("toolkit", agent_id=world.agent_id)
    assert world.script.calls() == ["ID-TOKEN", EXCHANGE]
    assert (outcome.outputs["agent-id"], outcome.outputs["created"]) == (world.agent_id, "false")
    assert outcome.outputs["authenticated"] == "true"


def test_refused_agent_token_leaves_the_registration(world):
    """If the agent's own exchange is refused, the agent stays registered and its id is an output."""
    world.script.on(EXCHANGE, world.token("agents:write"), world.refusal(403, "TRUST_POLICY_VIOLATION"))
    world.script.on(CREATE, world.answer(status=201, json=world.agent()))
    world.script.on(REVOKE, world.answer(json={}))
    outcome = world.run("toolkit", agent_name="bot@example.com")
    assert outcome.exit_code == 1
    assert outcome.outputs["agent-id"] == world.agent_id
    assert (outcome.outputs["authenticated"], outcome.outputs["error-code"]) == (
        "false",
        "TRUST_POLICY_VIOLATION",
    )


@pytest.mark.parametrize(
    ("inputs", "agent_id"), [({"agent_name": "bot@example.com"}, False), ({"agent_id": "own"}, True)]
)
def test_dry_run_changes_nothing(world, inputs, agent_id):
    """A dry run checks the first exchange of a real run and changes nothing."""
    inputs = {name: world.agent_id if value == "own" else value for name, value in inputs.items()}
    world.script.on(EXCHANGE, world.permission())
    outcome = world.run("toolkit", dry_run="true", **inputs)
    assert world.script.calls() == ["ID-TOKEN", EXCHANGE]
    assert outcome.exit_code == 0
    assert (outcome.outputs["authenticated"], outcome.outputs["created"]) == ("false", "false")
    assert ("agent-id" in outcome.outputs) is agent_id


def test_provider_that_is_down_can_be_skipped(world):
    """`on-unavailable: skip` applies to the registration too."""
    world.script.on(EXCHANGE, *[world.answer(error=httpx.ConnectError("refused"))] * 40)
    world.script.verify = lambda: None
    outcome = world.run("toolkit", agent_name="bot@example.com", on_unavailable="skip")
    assert (outcome.exit_code, outcome.outputs["authenticated"]) == (0, "false")
    assert len(outcome.commands("warning")) == 1


def test_bad_input_is_not_skipped(world):
    """A step with neither id nor name fails before any request, even with `skip`."""
    outcome = world.run("toolkit", on_unavailable="skip")
    assert (outcome.exit_code, outcome.outputs["error-code"]) == (1, "INVALID_INPUT")
    assert world.script.requests == []


def test_refusal_is_not_skipped(world):
    """A refusal fails the step, even with `skip`."""
    world.script.on(EXCHANGE, world.refusal(403, "TRUST_POLICY_VIOLATION"))
    outcome = world.run("toolkit", agent_id=world.agent_id, on_unavailable="skip")
    assert (outcome.exit_code, len(outcome.commands("error"))) == (1, 1)


@pytest.mark.parametrize("dry_run", ["false", "true"])
@pytest.mark.parametrize(("suggested", "offered"), [({"repository": "o/r"}, True), (None, False)])
def test_refused_registration_offers_the_one_policy_that_is_enough(world, dry_run, suggested, offered):
    """The suggested policy has `trustRegistered`, so that it covers both exchanges of the action."""
    world.script.on(EXCHANGE, world.refusal(403, "TRUST_POLICY_VIOLATION", suggestedPolicy=suggested))
    outcome = world.run("toolkit", agent_name="bot@example.com", dry_run=dry_run)
    (error,) = outcome.commands("error")
    assert ('{"repository": "o/r", "trustRegistered": true}' in error) is offered
    assert ("curl" in error) is offered


SERVICE = "https://deploy.example.com"
OTHER = {"service": "urn:ex:other", "scopes": ["read"]}


@pytest.mark.parametrize("dry_run", ["false", "true"])
@pytest.mark.parametrize(
    ("nearest", "scope", "grants"),
    [
        (
            {},
            "deploy:production, deploy:staging",
            [{"service": SERVICE, "scopes": ["deploy:production", "deploy:staging"]}],
        ),
        ({}, "", [{"service": SERVICE, "scopes": ["SCOPE-OF-THE-SERVICE"]}]),
        ({"grants": [OTHER]}, "x", [OTHER, {"service": SERVICE, "scopes": ["x"]}]),
        ({"grants": [{"service": SERVICE, "scopes": ["y"]}]}, "x", [{"service": SERVICE, "scopes": ["y"]}]),
    ],
)
def test_refused_registration_offers_a_policy_that_grants_the_service(world, dry_run, nearest, scope, grants):
    """The bootstrap exchange cannot name the service, so the action adds its grant to the suggested policy."""
    suggested = {"repository": "o/r", **nearest}
    world.script.on(EXCHANGE, world.refusal(403, "TRUST_POLICY_VIOLATION", suggestedPolicy=suggested))
    outcome = world.run(
        "toolkit", agent_name="bot@example.com", dry_run=dry_run, resource=SERVICE, scope=scope
    )
    (error,) = outcome.commands("error")
    offered = json.loads(shlex.split(error.partition("--data ")[2].partition("%0A")[0])[0])
    assert offered == {"repository": "o/r", "trustRegistered": True, "grants": grants}


@pytest.mark.parametrize("suggested", [None, {"repository": "o/r"}])
def test_no_grant_without_a_service_or_a_suggestion(world, suggested):
    """Without a suggestion no policy is offered, and without `resource` no grant."""
    world.script.on(EXCHANGE, world.refusal(403, "TRUST_POLICY_VIOLATION", suggestedPolicy=suggested))
    resource = SERVICE if suggested is None else ""
    outcome = world.run("toolkit", agent_name="bot@example.com", resource=resource)
    (error,) = outcome.commands("error")
    assert "grants" not in error
    assert ("curl" in error) is (suggested is not None)


def test_update_reaches_the_registration(world):
    """With `update` the root action changes the agent as register-agent does."""
    world.script.on(EXCHANGE, world.token("agents:write"), world.token())
    world.script.on(CREATE, world.refusal(409, "AGENT_ALREADY_EXISTS", agentId=world.agent_id))
    world.script.on(f"GET /agents/{world.agent_id}", world.answer(json=world.agent()))
    world.script.on(f"PATCH /agents/{world.agent_id}", world.answer(json=world.agent()))
    world.script.on(REVOKE, world.answer(json={}))
    outcome = world.run("toolkit", agent_name="bot@example.com", agent_version="2.0.0", update="true")
    assert outcome.exit_code == 0
    assert world.script.made(f"PATCH /agents/{world.agent_id}")[0].body == {"version": "2.0.0"}


@pytest.mark.parametrize("named", [{"agent_id": "own"}, {"agent_name": "bot@example.com"}])
def test_resource_is_asked_for_the_agent_alone(world, named):
    """Only the agent's token is for the service; the bootstrap token is for the provider."""
    service = "https://deploy.example.com"
    by_name = "agent_name" in named
    named = named if by_name else {"agent_id": world.agent_id}
    world.script.on(EXCHANGE, *[world.token("agents:write")] * by_name, world.token("deploy:production"))
    if by_name:
        world.script.on(CREATE, world.answer(status=201, json=world.agent()))
        world.script.on(REVOKE, world.answer(json={}))
    assert world.run("toolkit", resource=service, **named).exit_code == 0
    *bootstrap, own = (request.body for request in world.script.made(EXCHANGE))
    assert all("resource" not in body for body in bootstrap)
    assert own["resource"] == service
