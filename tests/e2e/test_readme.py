"""The README as a first-time reader uses it: its blocks, pasted in order into a shell in a new folder."""

import json
import os
import re
from functools import partial

import pytest
import yaml

from kit import manual
from kit.processes import free_port
from kit.tokens import JWT

EXPRESSION = re.compile(r"\$\{\{ steps\.(\w+)\.outputs\.([\w-]+) \}\}")


def blocks(language):
    """The README's code blocks in one language."""
    return [it.text for it in manual.blocks("README.md", language)]


@pytest.fixture
def here(github):
    """A function that replaces the addresses and ports of the README's examples with this test's."""
    port, mock_port, service_port = free_port(), free_port(), free_port()
    places = {
        "https://idp.example.com": f"http://127.0.0.1:{port}",
        # The service's address; its identifier is not replaced.
        "https://deploy.example.com/deployments": f"http://127.0.0.1:{service_port}/deployments",
        "3000": str(port),
        "3001": str(mock_port),
        "3002": str(service_port),
    }
    named = re.compile("|".join(rf"\b{re.escape(it)}\b" for it in places))

    return lambda text: named.sub(lambda place: places[place[0]], text)


@pytest.fixture
def python(tmp_path):
    """The variables of a machine with this Python and without a package index."""
    programs = tmp_path / "programs"
    programs.mkdir()
    return manual.offline_python(programs)


@pytest.fixture
def terminal(tmp_path, checkout, python, environment, github, here, transcript):
    """A shell in an empty folder, in which GitHub's URL of the toolkit is the checkout, and the mock is the issuer."""
    settings = {
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{checkout}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/sentryagent/toolkit",
        "MOCK_IDP_URL": here("http://127.0.0.1:3001"),
        "SENTRYAGENT_GITHUB_ISSUER": github.url,
    }
    told = partial(transcript.add, "the terminal")
    with manual.Terminal(tmp_path, environment | python | settings, told) as terminal:
        yield terminal


def workflow_steps(here):
    """The steps of the README's workflows, in order."""
    for block in blocks("yaml"):
        content = yaml.safe_load(here(block))
        yield from content if isinstance(content, list) else content["jobs"]["release"]["steps"]


def filled_in(text, outputs):
    """A workflow's value with the expressions for earlier steps' outputs evaluated."""
    return EXPRESSION.sub(lambda it: outputs[it[1]][it[2]], text)


def run_step(terminal, step, github, outputs):
    """Run a workflow step as a runner does, with the `outputs` of earlier steps; return its log and outputs."""
    folder = {"sentryagent/toolkit@v1": "."}.get(
        step["uses"], step["uses"][len("sentryagent/") : -len("@v1")]
    )
    words = [".venv/bin/mock-idp", "run", folder, f"--url={github.url}", "--json=../report.json"]
    words += [f"--input={name}={filled_in(value, outputs)}" for name, value in step["with"].items()]
    if "resource" in step["with"]:
        words.append("--input=revoke=false")  # each step is a job here, whose end would revoke the token
    log = terminal.paste(" ".join(words))
    return log, json.loads((terminal.folder / "report.json").read_text())["outputs"]


def test_the_blocks_run_as_pasted_in_their_order(terminal, here, install, github):
    """The shell blocks work in order, from `git clone` to a service that refuses and then accepts the agent's token."""
    first, *others = map(here, blocks("sh"))
    clone, enter, demo = first.splitlines()
    terminal.paste(f"{clone}\n{enter}")
    install(terminal.folder / "toolkit")
    assert "/deployments -> 200" in terminal.paste(demo)

    printed = "".join(map(terminal.paste, others))
    assert printed.count('"status":"ready"') == 2
    assert re.findall(r"^Agent .* (registered|found): ", printed, re.MULTILINE) == ["registered", "found"]
    assert re.findall(r"^HTTP/1.1 ([0-9]+) ", printed, re.MULTILINE) == ["403", "200"]
    assert 'Bearer error="insufficient_scope", scope="deploy:production"' in printed
    agent_id = re.search(r"^Agent .* registered: ([0-9a-f-]{36})", printed, re.MULTILINE)[1]
    assert f'{{"agent":"{agent_id}"}}' in printed


def test_the_workflows_of_the_readme_end_at_the_service(terminal, here, install, github):
    """Both of the README's workflows work under one policy, and the service accepts the first workflow's token."""
    first, start, *_, installed, organisation, policy = map(here, blocks("sh"))
    terminal.paste("\n".join(first.splitlines()[:2]))
    install(terminal.folder / "toolkit")
    [service] = re.findall(r"^TOKEN_ISSUER=(?:.*\n)+?.* &\n", start, re.MULTILINE)
    terminal.paste(installed)
    assert terminal.paste("~/sentryagent/venv/bin/sentryagent-idp --version").startswith(
        "sentryagent-idp, version"
    )
    terminal.paste(organisation + service + policy)

    outputs, done = {}, []
    for step in workflow_steps(here):
        if "uses" in step:
            log, outputs[step["id"]] = run_step(terminal, step, github, outputs)
            done.append(step["uses"])
            assert not JWT.search(log)
        else:
            environ = " ".join(f"{name}={filled_in(value, outputs)}" for name, value in step["env"].items())
            done.append(terminal.paste(f"export {environ}; {step['run']}").strip())

    agent_id = outputs["agent"]["agent-id"]
    assert [re.sub(r".*(\{.*})$", r"\1", it, flags=re.DOTALL) for it in done] == [
        "sentryagent/register-agent@v1",
        "sentryagent/issue-token@v1",
        f'{{"agent":"{agent_id}"}}',
        "sentryagent/toolkit@v1",
    ]
    assert outputs["token"]["scope"] == "deploy:production"
    assert f"Issued a token for agent {agent_id} and service https://deploy.example.com" in log


def test_a_policy_that_is_pasted_twice_is_named(terminal, here, install):
    """A second POST of the same policy fails and shows the response, which names the existing policy."""
    first, start, policy, *_ = map(here, blocks("sh"))
    terminal.paste("\n".join(first.splitlines()[:2]))
    install(terminal.folder / "toolkit")
    terminal.paste(start)

    created = terminal.paste(policy)
    again = terminal.paste(f"{policy[policy.rindex('curl ') :].rstrip()} || echo; echo")

    [policy_id] = re.findall(r'"id":"([0-9a-f-]{36})"', created)
    assert '"code":"TRUST_POLICY_ALREADY_EXISTS"' in again
    assert f'"policyId":"{policy_id}"' in again
    assert "curl: (22)" in again
