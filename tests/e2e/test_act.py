"""Workflows as their authors write them, in `act`, an independent runner, with the real Docker engine.

act names its images after the actions, so concurrent runs would interfere: these tests share one xdist group.
"""

import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest

from kit.docker import docker
from kit.http import serving
from kit.processes import BIN, ROOT, output_of, run
from kit.tokens import token_of

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("docker"),
    pytest.mark.usefixtures("docker_engine"),
]

EXAMPLES = ROOT / "examples" / "workflows"
PUBLISHED = ("issue-token", "register-agent")
SECONDS = 180


@dataclass(frozen=True)
class ActRun:
    """The result of a workflow in act."""

    exit_code: int
    log: str

    def outputs(self, name: str) -> list[str]:
        """The values of an output, in the order of the steps that set it."""
        return re.findall(rf"::set-output:: {re.escape(name)}=(.*)", self.log)


@dataclass
class Service:
    """A service that accepts the provider's valid tokens (RFC 9068)."""

    url: str = ""
    audience: str = ""
    """The expected audience; the provider itself if empty."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@pytest.fixture
def service(provider):
    """A protected service on 127.0.0.1 that knows only the provider's URL."""
    service = Service()

    def answer(_path: str, headers: Any, _body: bytes) -> tuple[int, Any]:
        try:
            service.seen.append(provider.verify(token_of(headers), service.audience))
        except jwt.PyJWTError as error:
            service.refused.append(str(error))
            return 401, {}
        return 200, {}

    with serving(answer) as url:
        service.url = f"{url}/"
        yield service


@pytest.fixture(scope="module")
def actions(checkout, tmp_path_factory):
    """The folder for each `uses:`: the published repositories, written by `make actions-dist`, and the toolkit."""
    folder = tmp_path_factory.mktemp("dist")
    script = checkout / "release" / "actions_dist.py"
    output_of(sys.executable, "-B", script, "--to", folder)
    yield {f"sentryagent/{name}@v1": folder / name for name in PUBLISHED} | {
        "sentryagent/toolkit@v1": checkout
    }
    ours = ("--filter", "reference=act-sentryagent-*-dockeraction")
    docker("rmi", *docker("images", *ours, "--format", "{{.Repository}}").split())


@pytest.fixture(scope="module")
def machine():
    """The image for `runs-on: ubuntu-latest`, which is built if it does not exist."""
    tag = "act-runner:local"
    if run("docker", "image", "inspect", tag).returncode:
        docker("build", "-t", tag, "-", input=(ROOT / "tests" / "e2e" / "act-runner.Dockerfile").read_text())
    return tag


@pytest.fixture
def act(machine, actions, environment, git, github, repository, tmp_path, transcript):
    """Run a workflow; `job` has options of `mock-idp env`, or is `None` for act without OIDC."""

    def act(workflow: str, job: dict[str, str] | None, **variables: str) -> ActRun:
        folder = tmp_path / "repository"
        file = folder / ".github" / "workflows" / "ci.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(workflow)
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "--all")
        git(folder, "commit", "-qm", "CI", "--allow-empty")
        command = [BIN / "act", "--workflows", ".github/workflows/ci.yml", "--detect-event"]
        command += ["--platform", f"ubuntu-latest={machine}", "--network", "host", "--pull=false"]
        command += ["--rebuild", "--rm", "--action-offline-mode", "--no-cache-server"]
        command += [f"--local-repository={uses}={path}" for uses, path in actions.items()]
        command += [f"--var={name}={value}" for name, value in variables.items()]
        if job is not None:
            command += oidc_arguments(github, {"repository": repository} | job)
        # Without the settings and the cache of this machine's user.
        folders = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
        environ = environment | dict.fromkeys(folders, str(tmp_path))
        done = transcript.run(*command, cwd=folder, env=environ, timeout=SECONDS)
        return ActRun(done.returncode, done.stdout)

    return act


def oidc_arguments(github: Any, job: dict[str, str]) -> list[str]:
    """The arguments that `act $(mock-idp env --format act)` passes to act."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in job.items()]
    return output_of(BIN / "mock-idp", "env", "--url", github.url, "--format", "act", *options).split()


def example(name: str) -> str:
    return (EXAMPLES / f"{name}.yml").read_text()


def policy_of(name: str) -> dict[str, Any]:
    """The trust policy in an example's comment."""
    return json.loads(re.search(r"^# (\{.*\})$", example(name), re.MULTILINE)[1])


def policies_in(manual: str) -> list[dict[str, Any]]:
    """The services and trust policies that a manual creates with curl, in order."""
    found = re.findall(r"^  --data '(\{.*?\})'$", (ROOT / manual).read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return [json.loads(policy) for policy in found]


def readme_workflow(provider: Any, service: Service) -> str:
    """The workflow in the README, with this test's addresses."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    [workflow] = [block for block in blocks if "sentryagent/register-agent@v1" in block]
    workflow = workflow.replace("https://idp.example.com", provider.url)
    return workflow.replace("https://deploy.example.com/deployments", service.url)


def prepare_as_in_the_readme(provider: Any, repository: str, service: Service) -> None:
    """Register the README's service, unless another test already has, and create its policy for this repository."""
    body, policy = policies_in("README.md")[-2:]
    assert provider.admin.post("/services", json=body).status_code in {201, 409}
    provider.policy(**policy | {"repository": repository})
    service.audience = body["identifier"]


def test_the_readmes_workflow_runs_as_it_stands(act, provider, repository, agent_name, service):
    """Copied from the README, the workflow registers, issues and calls a service; run twice, it acts as the same agent."""
    prepare_as_in_the_readme(provider, repository, service)
    workflow = readme_workflow(provider, service).replace("release-bot@octo-org.example", agent_name)
    assert agent_name in workflow

    first = act(workflow, {})
    again = act(workflow, {})

    assert (first.exit_code, again.exit_code) == (0, 0), first.log + again.log
    assert first.outputs("created") == ["true"]
    assert again.outputs("created") == ["false"]
    assert first.outputs("agent-id") == again.outputs("agent-id")
    assert first.outputs("access-token") == ["***"]
    assert [claims["sub"] for claims in service.seen] == first.outputs("agent-id") * 2
    assert service.refused == []


@pytest.mark.parametrize(
    "manual", ["issue-token/README.md", "register-agent/README.md", "docs/one-step-action.md"]
)
def test_a_manuals_quick_start_runs_as_it_stands(manual, act, provider, repository, agent_name):
    """A manual's policy and workflow fit together: the agent reads its own record."""
    text = (ROOT / manual).read_text()
    policy = policies_in(manual)[0]
    workflow = re.search(r"^```yaml\n(name: .*?)^```", text, re.DOTALL | re.MULTILINE)[1]
    workflow = workflow.replace("https://idp.example.com", provider.url)
    workflow = workflow.replace("deploy-bot@octo-org.example", agent_name)
    if "agentId" in policy:
        agent_id = provider.agent(agent_name)
        workflow = workflow.replace(policy["agentId"], agent_id)
        policy["agentId"] = agent_id
    provider.policy(**policy | {"repository": repository})

    run = act(workflow, {})

    assert run.exit_code == 0, run.log
    assert f'"email":"{agent_name}"' in run.log


def test_the_examples_register_first_and_issue_later(act, provider, repository, agent_name, service):
    """The id that register.yml outputs lets issue.yml act as that agent, under the same policy."""
    provider.policy(**policy_of("register") | {"repository": repository})
    address = {"SENTRYAGENT_API_URL": provider.url}

    registered = act(example("register"), {}, SENTRYAGENT_AGENT_NAME=agent_name, **address)
    assert registered.exit_code == 0, registered.log
    [agent_id] = registered.outputs("agent-id")
    issued = act(example("issue"), {}, SENTRYAGENT_AGENT_ID=agent_id, SERVICE_URL=service.url, **address)

    assert issued.exit_code == 0, issued.log
    [claims] = service.seen
    assert claims["sub"] == agent_id
    assert claims["exp"] - claims["iat"] == 600
    assert claims["provenance"]["repository"] == repository


def test_the_one_step_example_needs_one_policy(act, provider, repository, agent_name, service):
    """The workflow one-step.yml registers, issues and calls, with the root action from the toolkit's repository."""
    provider.policy(**policy_of("one-step") | {"repository": repository})

    run = act(
        example("one-step"),
        {},
        SENTRYAGENT_API_URL=provider.url,
        SENTRYAGENT_AGENT_NAME=agent_name,
        SERVICE_URL=service.url,
    )

    assert run.exit_code == 0, run.log
    assert [claims["sub"] for claims in service.seen] == run.outputs("agent-id")


# Each example of issue-token: fields of its policy, options of its job, number of calls to the service.
OF_ISSUE_TOKEN = {
    "long-job": ({"branch": "main"}, {}, 2),
    "environment": ({"environment": "production"}, {"environment": "production"}, 1),
    "reusable": ({"branch": "main"}, {}, 1),
    "private-network": ({"branch": "main"}, {}, 1),
    "on-failure": ({"branch": "main"}, {}, 1),
    # As for a pull request from a fork, the event does not name this repository as its head.
    "pull-request": ({"events": ["pull_request"]}, {"event": "pull_request"}, 0),
    "dry-run": ({"branch": "main"}, {}, 0),
}


@pytest.mark.parametrize("name", OF_ISSUE_TOKEN)
def test_an_example_of_issue_token_acts_as_its_agent(name, act, provider, repository, agent_name, service):
    """Each example calls the service as often as stated, always as the policy's agent."""
    policy, job, calls = OF_ISSUE_TOKEN[name]
    agent_id = provider.agent(agent_name)
    provider.policy(repository, agentId=agent_id, **policy)
    workflow = example(name).replace("[self-hosted, linux]", "ubuntu-latest")
    variables = {"SENTRYAGENT_API_URL": provider.url, "SENTRYAGENT_AGENT_ID": agent_id}

    run = act(workflow, job, SERVICE_URL=service.url.rstrip("/"), **variables)

    assert run.exit_code == 0, run.log
    assert [claims["sub"] for claims in service.seen] == [agent_id] * calls
    assert service.refused == []
    assert ("this run would get agents:read" in run.log) == (name == "dry-run")


def test_the_matrix_example_shares_one_agent(act, provider, repository, agent_name, service):
    """The three jobs of matrix.yml get three tokens of one agent, which one of them registered."""
    provider.policy(**policy_of("matrix") | {"repository": repository})
    variables = {"SENTRYAGENT_API_URL": provider.url, "SENTRYAGENT_AGENT_NAME": agent_name}

    run = act(example("matrix"), {}, SERVICE_URL=service.url.rstrip("/"), **variables)

    assert run.exit_code == 0, run.log
    assert len({claims["jti"] for claims in service.seen}) == 3
    assert len({claims["sub"] for claims in service.seen}) == 1
    assert sorted(run.outputs("created")) == ["false", "false", "true"]


def test_there_is_no_example_that_is_not_run():
    """Every example is run by a test in this file."""
    run_alone = {"register", "issue", "one-step", "matrix"}
    assert {file.stem for file in EXAMPLES.glob("*")} == run_alone | OF_ISSUE_TOKEN.keys()


def test_both_actions_run_out_of_the_toolkits_own_repository(act, provider, repository, agent_name, service):
    """`uses: sentryagent/toolkit/issue-token@v1` works from the toolkit's repository, without published mirrors."""
    prepare_as_in_the_readme(provider, repository, service)
    workflow = readme_workflow(provider, service).replace("release-bot@octo-org.example", agent_name)
    in_place = re.sub(r"sentryagent/([a-z-]+)@v1", r"sentryagent/toolkit/\1@v1", workflow)
    assert in_place.count("sentryagent/toolkit/") == len(PUBLISHED)

    run = act(in_place, {})

    assert run.exit_code == 0, run.log
    assert [claims["sub"] for claims in service.seen] == run.outputs("agent-id")


def test_act_and_the_mocks_runner_give_the_same_outputs(act, provider, trusted_agent, service, run_in_docker):
    """Two independent runners get outputs with the same names and, except for the token and its expiry, the same values."""
    # The example requests a token for ten minutes.
    ours = run_in_docker("issue-token", {"agent-id": trusted_agent, "expires-in": "600"})
    theirs = act(
        example("issue"),
        {"ref": "refs/heads/main"},
        SENTRYAGENT_API_URL=provider.url,
        SENTRYAGENT_AGENT_ID=trusted_agent,
        SERVICE_URL=service.url,
    )

    assert (ours.outcome, theirs.exit_code) == ("success", 0), theirs.log
    assert set(re.findall(r"::set-output:: ([\w-]+)=", theirs.log)) == ours.outputs.keys()
    for name in ours.outputs.keys() - {"access-token", "expires-at"}:
        assert theirs.outputs(name)[-1] == ours.outputs[name]


def test_a_refused_branch_stops_the_job_with_the_remedy(act, provider, trusted_agent, service):
    """The log names the trusted branch and the policy that an admin could create; the next step does not run."""
    run = act(
        example("issue"),
        {"ref": "refs/heads/feature"},
        SENTRYAGENT_API_URL=provider.url,
        SENTRYAGENT_AGENT_ID=trusted_agent,
        SERVICE_URL=service.url,
    )

    assert run.exit_code != 0
    assert "Branch not permitted" in run.log
    assert "/api/v1/oidc/trust-policies" in run.log
    assert run.outputs("error-code") == ["BRANCH_NOT_PERMITTED"]
    assert run.outputs("authenticated") == ["false"]
    assert service.seen == service.refused == []


REACTS_TO_A_REFUSAL = """
on: push
permissions: {}
jobs:
  act:
    runs-on: ubuntu-latest
    permissions:
      id-token: write
    steps:
      - uses: sentryagent/issue-token@v1
        id: token
        continue-on-error: true
        with:
          api-url: ${{ vars.SENTRYAGENT_API_URL }}
          agent-id: ${{ vars.SENTRYAGENT_AGENT_ID }}
      - if: steps.token.outputs.error-code == 'BRANCH_NOT_PERMITTED'
        run: echo "went on without the agent"
"""


def test_the_next_step_can_react_to_a_refusal(act, provider, trusted_agent):
    """With `continue-on-error`, a later step can react to the outputs of the failed step."""
    run = act(
        REACTS_TO_A_REFUSAL,
        {"ref": "refs/heads/feature"},
        SENTRYAGENT_API_URL=provider.url,
        SENTRYAGENT_AGENT_ID=trusted_agent,
    )

    assert run.exit_code == 0, run.log
    assert "| went on without the agent" in run.log


def test_act_without_the_mock_is_told_what_it_lacks(act, provider, trusted_agent, service):
    """Without OIDC in act, the message points its user to the mock, not to `permissions`."""
    run = act(
        example("issue"),
        None,
        SENTRYAGENT_API_URL=provider.url,
        SENTRYAGENT_AGENT_ID=trusted_agent,
        SERVICE_URL=service.url,
    )

    assert run.exit_code != 0
    assert run.outputs("error-code") == ["ID_TOKEN_UNAVAILABLE"]
    assert "act $(mock-idp env --format act)" in run.log
    assert "id-token: write" not in run.log
