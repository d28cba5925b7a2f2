"""register-agent, one scenario per test."""

import httpx
import pytest

EXCHANGE, CREATE, REVOKE = "POST /oidc/token", "POST /agents", "POST /token/revoke"


@pytest.fixture
def registering(world):
    """A provider that issues a bootstrap token and revokes it."""
    world.script.on(EXCHANGE, world.token("agents:write"))
    world.script.on(REVOKE, world.answer(json={}))
    return world


def register(world, **inputs):
    return world.run("register-agent", **{"agent_name": "bot@example.com"} | inputs)


def taken(world, **details):
    return world.refusal(409, "AGENT_ALREADY_EXISTS", **details)


def test_agent_is_registered(registering):
    """The bootstrap token lives for 300 s and is revoked before the step ends."""
    registering.script.on(CREATE, registering.answer(status=201, json=registering.agent()))
    outcome = register(registering, agent_version="1.0.0", capabilities="ci:run, code:read")
    assert outcome.exit_code == 0
    assert outcome.outputs == {"agent-id": registering.agent_id, "created": "true"}
    assert outcome.state == {}
    assert registering.script.calls() == ["ID-TOKEN", EXCHANGE, CREATE, REVOKE]
    exchange, create = registering.script.made(EXCHANGE)[0], registering.script.made(CREATE)[0]
    assert exchange.body == {"token": exchange.body["token"], "expiresIn": 300}
    assert create.authorization == f"Bearer {registering.access_token}"
    assert create.body == {
        "email": "bot@example.com",
        "version": "1.0.0",
        "capabilities": ["ci:run", "code:read"],
    }
    assert "eyJ" not in outcome.visible + outcome.summary


def test_rerun_finds_the_agent(registering):
    """A second run finds the agent and gives no notice, because nothing differs."""
    registering.script.on(CREATE, taken(registering, agentId=registering.agent_id, status="active"))
    registering.script.on(f"GET /agents/{registering.agent_id}", registering.answer(json=registering.agent()))
    outcome = register(registering, agent_version="1.0.0")
    assert outcome.exit_code == 0
    assert outcome.outputs == {"agent-id": registering.agent_id, "created": "false"}
    assert outcome.commands("notice") == []


def test_rerun_tells_differences_in_one_notice(registering):
    """One notice lists the inputs that differ from the stored agent; nothing is changed."""
    registering.script.on(CREATE, taken(registering, agentId=registering.agent_id, status="active"))
    registering.script.on(f"GET /agents/{registering.agent_id}", registering.answer(json=registering.agent()))
    outcome = register(
        registering, agent_version="2.0.0", capabilities="a:b", agent_description="new", owner="octo-org"
    )
    (notice,) = outcome.commands("notice")
    assert '`agent-version`: the workflow says "2.0.0", the provider has "1.0.0"' in notice
    assert '`capabilities`: the workflow says ["a:b"], the provider has ["ci:run"]' in notice
    assert '`agent-description`: the workflow says "new", the provider has none' in notice
    assert "set `update: true`" in notice
    assert "owner" not in notice
    assert outcome.exit_code == 0
    assert all(request.method != "PATCH" for request in registering.script.requests)


def test_lost_answer_counts_as_found(registering):
    """A POST whose response was lost is sent again, and the agent that exists by then counts as found."""
    registering.script.on(
        CREATE,
        registering.answer(error=httpx.ReadError("reset")),
        taken(registering, agentId=registering.agent_id, status="active"),
    )
    registering.script.on(f"GET /agents/{registering.agent_id}", registering.answer(json=registering.agent()))
    outcome = register(registering)
    assert (outcome.exit_code, outcome.outputs["agent-id"]) == (0, registering.agent_id)


def test_agent_is_looked_up_by_name_where_its_id_is_not_told(registering):
    """If the 409 has no id, the agent is looked up in the list."""
    registering.script.on(CREATE, taken(registering))
    registering.script.on("GET /agents", registering.answer(json={"data": [registering.agent()]}))
    assert register(registering).outputs == {"agent-id": registering.agent_id, "created": "false"}


def test_somebody_elses_agent_fails(registering):
    """A name taken by another repository's agent fails the step, and the token is revoked."""
    registering.script.on(CREATE, taken(registering))
    registering.script.on("GET /agents", registering.answer(json={"data": []}))
    outcome = register(registering)
    assert outcome.exit_code == 1
    assert outcome.outputs == {
        "error-code": "AGENT_ALREADY_EXISTS",
        "http-status": "409",
        "retryable": "false",
        "request-id": "req-1",
    }
    assert "choose another `agent-name`" in outcome.commands("error")[0]
    assert "register-agent/README.md#agent_already_exists" in outcome.commands("error")[0]


@pytest.mark.parametrize(
    ("status", "remedy"), [("suspended", "make it active again"), ("decommissioned", "cannot be restored")]
)
def test_agent_that_is_not_active_fails(registering, status, remedy):
    """The repository's own agent, if suspended or decommissioned, fails the step with a remedy."""
    registering.script.on(CREATE, taken(registering, agentId=registering.agent_id, status=status))
    registering.script.on(
        f"GET /agents/{registering.agent_id}", registering.answer(json=registering.agent(status))
    )
    outcome = register(registering)
    assert outcome.exit_code == 1
    assert remedy in outcome.commands("error")[0]
    assert outcome.outputs["error-code"] == "AGENT_ALREADY_EXISTS"
    assert "agent-id" not in outcome.outputs


def test_bootstrap_token_is_revoked_after_a_failure(registering):
    """The bootstrap token is revoked after a refused registration."""
    registering.script.on(
        CREATE, registering.refusal(400, "VALIDATION_ERROR", field="agentType", reason="unknown type")
    )
    outcome = register(registering, agent_type="wizard")
    assert registering.script.calls()[-1] == REVOKE
    assert "Input `agent-type`: unknown type." in outcome.commands("error")[0]
    assert outcome.exit_code == 1


def test_failed_revocation_is_a_warning(world):
    """A failed revocation causes a warning; the registration stands."""
    world.script.on(EXCHANGE, world.token("agents:write"))
    world.script.on(CREATE, world.answer(status=201, json=world.agent()))
    world.script.on(REVOKE, world.refusal(403, "FORBIDDEN"))
    outcome = register(world)
    assert (outcome.exit_code, outcome.outputs["created"]) == (0, "true")
    assert "The token expires by itself within 5 minutes." in outcome.commands("warning")[0]


@pytest.mark.parametrize(
    "members", [{"expires_at": "9999-12-31T23:59:59-23:59"}, {"expires_in": -1}, {"scope": None}]
)
def test_bootstrap_token_of_a_broken_answer_is_revoked(world, members):
    """A token in a response that is otherwise unusable is revoked."""
    world.script.on(EXCHANGE, world.token(**members))
    world.script.on(REVOKE, world.answer(json={}))
    outcome = register(world)
    assert (outcome.exit_code, outcome.outputs["error-code"]) == (1, "INVALID_RESPONSE")
    assert world.script.calls() == ["ID-TOKEN", EXCHANGE, REVOKE]
    assert outcome.state == {}


def test_bootstrap_token_is_revoked_when_cancelled(registering):
    """A cancellation while the action waits still revokes the token."""

    def cancelled(seconds):
        raise KeyboardInterrupt

    registering.time.sleep = cancelled
    registering.script.on(CREATE, registering.answer(status=503, text="busy"))
    with pytest.raises(KeyboardInterrupt):
        register(registering)
    assert registering.script.calls()[-1] == REVOKE


def test_dry_run_registers_nothing(world):
    """A dry run ends after the decision and registers nothing."""
    world.script.on(EXCHANGE, world.permission("agents:write"))
    outcome = register(world, dry_run="true")
    assert world.script.calls() == ["ID-TOKEN", EXCHANGE]
    assert outcome.outputs == {"created": "false"}
    assert outcome.exit_code == 0


def test_provider_that_is_down_fails(world):
    """register-agent cannot skip an outage, because later steps need the agent."""
    world.script.on(EXCHANGE, *[world.answer(error=httpx.ConnectError("refused"))] * 40)
    world.script.verify = lambda: None
    outcome = register(world, timeout="10")
    assert outcome.exit_code == 1
    assert outcome.outputs["error-code"] == "PROVIDER_UNREACHABLE"
    assert world.time.seconds <= 10


def test_update_writes_what_differs(registering):
    """With `update: true` only the differing fields are patched, with the bootstrap token."""
    agent = registering.agent()
    registering.script.on(CREATE, taken(registering, agentId=registering.agent_id, status="active"))
    registering.script.on(f"GET /agents/{registering.agent_id}", registering.answer(json=agent))
    patched = agent | {"version": "2.0.0", "description": "new"}
    registering.script.on(f"PATCH /agents/{registering.agent_id}", registering.answer(json=patched))
    outcome = register(
        registering, update="true", agent_version="2.0.0", agent_description="new", owner="octo-org"
    )
    (patch,) = registering.script.made(f"PATCH /agents/{registering.agent_id}")
    assert patch.body == {"version": "2.0.0", "description": "new"}
    assert patch.authorization == f"Bearer {registering.access_token}"
    assert outcome.outputs == {"agent-id": registering.agent_id, "created": "false"}
    assert outcome.commands("notice") == []
    assert f"updated: {registering.agent_id} (agent-description, agent-version)." in outcome.stdout
    assert "<td>Updated by this run</td><td>agent-description, agent-version</td>" in outcome.summary
    assert registering.script.calls()[-1] == REVOKE


def test_update_of_an_equal_agent_writes_nothing(registering):
    """An agent that already matches the inputs is not changed."""
    registering.script.on(CREATE, taken(registering, agentId=registering.agent_id, status="active"))
    registering.script.on(f"GET /agents/{registering.agent_id}", registering.answer(json=registering.agent()))
    outcome = register(registering, update="true", agent_version="1.0.0")
    assert (outcome.exit_code, outcome.outputs["created"]) == (0, "false")
    assert all(request.method != "PATCH" for request in registering.script.requests)


@pytest.mark.parametrize("status", ["suspended", "decommissioned"])
def test_update_does_not_touch_an_agent_that_is_not_active(registering, status):
    """An inactive agent fails the step even with `update`."""
    registering.script.on(CREATE, taken(registering, agentId=registering.agent_id, status=status))
    registering.script.on(
        f"GET /agents/{registering.agent_id}", registering.answer(json=registering.agent(status))
    )
    assert register(registering, update="true", agent_version="2.0.0").exit_code == 1


def test_refused_update_fails(registering):
    """A refused change fails the step with the name of the input."""
    registering.script.on(CREATE, taken(registering, agentId=registering.agent_id, status="active"))
    registering.script.on(f"GET /agents/{registering.agent_id}", registering.answer(json=registering.agent()))
    refusal = registering.refusal(400, "VALIDATION_ERROR", field="version", reason="write a version as 1.0.0")
    registering.script.on(f"PATCH /agents/{registering.agent_id}", refusal)
    outcome = register(registering, update="true", agent_version="two")
    assert outcome.exit_code == 1
    assert "Input `agent-version`: write a version as 1.0.0." in outcome.commands("error")[0]
    assert registering.script.calls()[-1] == REVOKE


def test_dry_run_says_what_it_did_not_check(world):
    """A dry run only checks the registration; its text does not claim more."""
    world.script.on(EXCHANGE, world.permission("agents:write"))
    outcome = register(world, dry_run="true")
    assert "would allow this repository to register agents" in outcome.stdout
    assert "dry run, this repository may register agents" in outcome.summary


@pytest.mark.parametrize("dry_run", ["false", "true"])
@pytest.mark.parametrize(
    ("suggested", "offered"),
    [
        ({"repository": "o/r"}, '{"repository": "o/r", "trustRegistered": true}'),
        ({"repository": "o/r", "trustRegistered": False}, '{"repository": "o/r", "trustRegistered": false}'),
        (None, ""),
    ],
    ids=["no policy yet", "as the nearest policy", "nothing to paste"],
)
def test_the_first_policy_is_that_of_the_quick_start(world, dry_run, suggested, offered):
    """For a repository without policies the suggestion adds `trustRegistered`, which issue-token needs."""
    world.script.on(EXCHANGE, world.refusal(403, "TRUST_POLICY_VIOLATION", suggestedPolicy=suggested))
    outcome = register(world, dry_run=dry_run)
    (error,) = outcome.commands("error")
    assert outcome.exit_code == 1
    assert offered in error
    assert ("curl" in error) is bool(offered)
