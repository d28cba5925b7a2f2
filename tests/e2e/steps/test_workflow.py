"""The main job of a workflow: register an agent, issue its token, use it."""

import httpx

from kit.tokens import bearer, claims_of


def test_a_workflow_registers_its_agent_and_acts_as_it(provider, repository, register, run_action):
    """The manual's flow: policy, register-agent, policy, issue-token, and a call with the token."""
    provider.policy(repository, branch="main")
    registered = register(agent_description="Cuts the releases")
    assert registered.outputs.keys() == {"agent-id", "created"}
    assert registered.outputs["created"] == "true"
    agent_id = registered.outputs["agent-id"]

    provider.policy(repository, branch="main", agentId=agent_id, scopes=["agents:read", "tokens:read"])
    issued = run_action("issue-token", {"agent-id": agent_id, "revoke": "false"})

    assert issued.exit_code == 0
    assert issued.annotations == []
    token = issued.outputs["access-token"]
    claims = provider.verify(token)
    assert claims["sub"] == claims["client_id"] == agent_id
    assert claims["scope"] == issued.outputs["scope"] == "agents:read tokens:read"
    assert claims["exp"] - claims["iat"] == int(issued.outputs["expires-in"]) == 3600
    assert claims["provenance"]["repository"] == repository
    assert issued.outputs["authenticated"] == "true"
    agent = f"{provider.url}/api/v1/agents/{agent_id}"
    answer = httpx.get(agent, headers=bearer(token), trust_env=False)
    assert answer.status_code == 200
    assert answer.json()["registeredBy"]["repository"] == repository


def test_a_policy_of_one_agent_opens_no_other(provider, repository, trusted_agent, run_action):
    """A repository that may act as one agent gets no token for another agent, and its token cannot read that agent."""
    other = provider.agent(f"other-than-{trusted_agent}@octo-org.example")

    refused = run_action("issue-token", {"agent-id": other})
    token = run_action("issue-token", {"agent-id": trusted_agent, "revoke": "false"}).token()

    assert refused.outputs["error-code"] == "TRUST_POLICY_VIOLATION"
    answer = httpx.get(f"{provider.url}/api/v1/agents/{other}", headers=bearer(token), trust_env=False)
    assert answer.status_code == 404


def test_registering_again_finds_the_agent(provider, repository, agent_name, register):
    """A re-run succeeds with the same id and `created` false, and without an annotation if nothing differs."""
    provider.policy(repository)
    first = register(agent_type="router")
    again = register(agent_type="router")

    assert again.outcome == "success"
    assert again.outputs == {"agent-id": first.outputs["agent-id"], "created": "false"}
    assert again.annotations == []
    assert len(provider.agents_named(agent_name)) == 1


def test_inputs_that_differ_are_told_once_and_change_nothing(provider, repository, agent_name, register):
    """A re-run with other inputs passes, shows all differences in one notice and leaves the record unchanged."""
    provider.policy(repository)
    register(agent_type="router", agent_version="1.0.0")
    [before] = provider.agents_named(agent_name)

    again = register(agent_type="monitor", agent_version="2.0.0", capabilities="ci:run")

    assert again.outputs["created"] == "false"
    notice = again.only_annotation()
    assert notice["level"] == "notice"
    assert '`agent-type`: the workflow says "monitor", the provider has "router"' in notice["message"]
    assert '`agent-version`: the workflow says "2.0.0", the provider has "1.0.0"' in notice["message"]
    assert "capabilities" not in notice["message"]
    assert provider.agents_named(agent_name) == [before]


def test_registration_leaves_no_credential_behind(provider, repository, register):
    """The bootstrap token is requested for 300 s, revoked before the step ends, and not saved as state."""
    provider.policy(repository)

    registered = register()

    assert registered.state == {}
    audit = provider.admin.get("/audit", params={"repository": repository}).raise_for_status().json()["data"]
    by_action = {record["action"]: record["details"] for record in audit}
    assert by_action["token.issued"]["expiresIn"] == 300
    assert by_action["token.revoked"]["revokedJti"] == by_action["token.issued"]["issuedJti"]


def test_one_step_registers_and_issues_under_one_policy(provider, repository, agent_name, run_action):
    """With `trustRegistered`, one policy is enough for the root action, in the first run and in the next."""
    provider.policy(repository, branch="main", trustRegistered=True, scopes=["agents:read"])

    first = run_action("", {"agent-name": agent_name, "revoke": "false"})
    again = run_action("", {"agent-name": agent_name, "revoke": "false"})

    assert provider.verify(first.token())["sub"] == first.outputs["agent-id"]
    assert provider.verify(again.token())["sub"] == first.outputs["agent-id"]
    assert (first.outputs["created"], again.outputs["created"]) == ("true", "false")
    assert first.outputs.keys() == again.outputs.keys()
    assert first.outputs["authenticated"] == again.outputs["authenticated"] == "true"


def test_one_step_with_an_id_registers_nothing(provider, trusted_agent, run_action):
    """With `agent-id`, the root action registers nothing and issues that agent's token."""
    issued = run_action("", {"agent-id": trusted_agent, "revoke": "false"})

    assert provider.verify(issued.token())["sub"] == trusted_agent
    assert issued.outputs["agent-id"] == trusted_agent
    assert issued.outputs["created"] == "false"


def test_update_makes_the_workflow_the_truth(provider, register, repository, agent_name):
    """`update: true` writes the inputs to the stored agent, and the next run reports no differences."""
    provider.policy(repository)
    register(agent_type="router", agent_version="1.0.0")

    updated = register(agent_type="monitor", agent_version="2.0.0", update="true")
    again = register(agent_type="monitor", agent_version="2.0.0")

    [agent] = provider.agents_named(agent_name)
    assert (agent["agentType"], agent["version"]) == ("monitor", "2.0.0")
    assert (updated.outputs["created"], updated.annotations, again.annotations) == ("false", [], [])


def test_a_token_for_a_service_is_for_that_service(provider, repository, agent_name, run_action):
    """`resource` selects the service; the refusal of a service that the policy does not grant names the granted ones."""
    service = f"https://{repository.rpartition('/')[2]}.example.com"
    made = provider.admin.post(
        "/services", json={"identifier": service, "scopes": [{"name": "deploy:production"}]}
    )
    assert made.status_code == 201, made.text
    agent_id = provider.agent(agent_name)
    provider.policy(
        repository, agentId=agent_id, grants=[{"service": service, "scopes": ["deploy:production"]}]
    )

    issued = run_action("issue-token", {"agent-id": agent_id, "resource": service})
    tried = run_action("issue-token", {"agent-id": agent_id, "resource": service, "dry-run": "true"})
    refused = run_action("issue-token", {"agent-id": agent_id, "resource": "https://other.example.com"})

    assert claims_of(issued.token())["aud"] == service
    assert issued.outputs["scope"] == tried.outputs["scope"] == "deploy:production"
    assert "The access token is revoked." in issued.log
    assert not provider.is_active(issued.token())
    assert service in issued.summary
    assert refused.outputs["error-code"] == "SERVICE_NOT_PERMITTED"
    assert f"Set the input `resource` to one of: {service}." in refused.only_annotation()["message"]
