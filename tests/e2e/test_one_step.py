"""The one-step action needs only one policy, even when the jobs of a matrix start together."""

import json
import shlex
from concurrent.futures import ThreadPoolExecutor

JOBS = 4


def test_jobs_started_together_share_one_agent(provider, repository, agent_name, run_action):
    """Four concurrent jobs get tokens of the same agent, which one of them registered."""
    provider.policy(repository, trustRegistered=True)
    inputs = {"agent-name": agent_name, "revoke": "false"}

    with ThreadPoolExecutor(JOBS) as pool:
        runs = list(pool.map(lambda _: run_action("", inputs), range(JOBS)))

    assert [run.outcome for run in runs] == ["success"] * JOBS, [run.log for run in runs]
    assert sorted(run.outputs["created"] for run in runs) == ["false"] * (JOBS - 1) + ["true"]
    assert {provider.verify(run.token())["sub"] for run in runs} == {runs[0].outputs["agent-id"]}
    assert len({run.token() for run in runs}) == JOBS
    assert all(run.annotations == [] for run in runs)
    assert len(provider.agents_named(agent_name)) == 1


def test_failed_jobs_run_again_recover(provider, repository, agent_name, run_action):
    """A job that registered the agent but got no token succeeds in a re-run, once the policy exists."""
    bootstrap = provider.policy(repository)
    first = run_action("", {"agent-name": agent_name})
    provider.policy(repository, agentId=first.outputs["agent-id"])

    again = run_action("", {"agent-name": agent_name}, run_attempt="2")

    assert bootstrap["trustRegistered"] is False
    assert (first.outcome, first.outputs["authenticated"]) == ("failure", "false")
    assert (again.outcome, again.outputs["created"]) == ("success", "false")


def test_the_policy_that_a_refusal_offers_is_enough(provider, agent_name, run_action):
    """With the policy from the refusal's command, the same run registers its agent and gets a token."""
    refused = run_action("", {"agent-name": agent_name})
    message = refused.only_annotation()["message"]
    words = shlex.split(next(line for line in message.splitlines() if line.startswith("curl ")))

    policy = json.loads(words[words.index("--data") + 1])
    created = provider.admin.post("/oidc/trust-policies", json=policy)
    allowed = run_action("", {"agent-name": agent_name})

    assert (refused.exit_code, refused.outputs["error-code"]) == (1, "TRUST_POLICY_VIOLATION")
    assert created.status_code == 201, created.text
    assert (allowed.outcome, allowed.outputs["created"]) == ("success", "true")
