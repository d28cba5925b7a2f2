"""The actions without Docker: in `act` directly on this machine, as on macOS or Windows runners, and as commands.

A script stands in for `pipx run`, because an unpublished version cannot be installed: it checks that this checkout's
version is requested, and starts this environment's command.
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kit.http import serving
from kit.processes import BIN, ROOT, output_of
from kit.tokens import token_of

SECONDS = 120
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PIPX = f"""\
#!/bin/sh
[ "$1 $2 $3 $4" = "run --spec sentryagent-actions=={VERSION} sentryagent-actions" ] || exit 99
case "$(pwd -P)" in "$(cd "$RUNNER_TEMP" && pwd -P)") ;; *) exit 98 ;; esac
shift 4
exec {shlex.quote(str(BIN / "sentryagent-actions"))} "$@"
"""
WORKFLOW = """
on: push
permissions: {}
jobs:
  job:
    runs-on: macos-latest
    permissions:
      id-token: write
    steps:
      - uses: sentryagent/register-agent/host@v1
        id: agent
        with:
          api-url: ${{ vars.API_URL }}
          agent-name: ${{ vars.AGENT_NAME }}
          agent-description: two lines and 'quotes', "$HOME" and `id`
      - uses: sentryagent/issue-token/host@v1
        id: token
        with:
          api-url: ${{ vars.API_URL }}
          agent-id: ${{ steps.agent.outputs.agent-id }}
      - env:
          ACCESS_TOKEN: ${{ steps.token.outputs.access-token }}
          SERVICE_URL: ${{ vars.SERVICE_URL }}
          SAID: ${{ steps.token.outputs.authenticated }} ${{ steps.token.outputs.scope }} ${{ steps.agent.outputs.created }}
        run: |
          curl --fail-with-body -sS -H "Authorization: Bearer $ACCESS_TOKEN" "$SERVICE_URL"
          echo "outputs: $SAID"
      - uses: sentryagent/issue-token/host/revoke@v1
        if: always()
"""


@pytest.fixture
def machine(tmp_path, environment):
    """The environment of a runner with pipx, but without Docker and this user's settings."""
    program = tmp_path / "bin" / "pipx"
    program.parent.mkdir()
    program.write_text(PIPX)
    program.chmod(0o755)
    folders = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(tmp_path))
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    return environment | folders | nowhere | {"PATH": f"{program.parent}:{environment['PATH']}"}


@pytest.fixture
def service(provider):
    """A service that records the tokens that it receives and whether they were active at that time."""
    seen: list[tuple[str, bool]] = []

    def answer(_path: str, headers: Any, _body: bytes) -> tuple[int, Any]:
        token = token_of(headers)
        seen.append((token, provider.is_active(token)))
        return 200, {}

    with serving(answer) as url:
        yield f"{url}/", seen


@pytest.fixture
def act(machine, git, github, repository, tmp_path, transcript):
    """Run a workflow directly on this machine; return the exit code and log."""
    published = tmp_path / "dist"
    output_of(sys.executable, "-B", ROOT / "release" / "actions_dist.py", "--to", published)

    def act(workflow: str, **variables: str) -> tuple[int, str]:
        folder = tmp_path / "repository"
        file = folder / ".github" / "workflows" / "ci.yml"
        file.parent.mkdir(parents=True)
        file.write_text(workflow)
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "--all")
        git(folder, "commit", "-qm", "CI")
        options = ("--url", github.url, "--format", "act", "--repository", repository)
        command = [BIN / "act", "--workflows", ".github/workflows/ci.yml", "--detect-event"]
        command += ["--platform", "macos-latest=-self-hosted", "--action-offline-mode", "--no-cache-server"]
        for action in ("issue-token", "register-agent"):
            command.append(f"--local-repository=sentryagent/{action}@v1={published / action}")
        command += [f"--var={name}={value}" for name, value in variables.items()]
        command += output_of(BIN / "mock-idp", "env", *options).split()
        done = transcript.run(*command, cwd=folder, env=machine, timeout=SECONDS)
        return done.returncode, done.stdout + done.stderr

    return act


def test_a_job_without_docker_registers_issues_calls_and_revokes(
    act, provider, repository, agent_name, service
):
    """Inputs and outputs are the same as in Docker; the token is active during the job and revoked by its last step."""
    provider.policy(repository, branch="main", trustRegistered=True)
    url, seen = service

    code, log = act(WORKFLOW, API_URL=provider.url, AGENT_NAME=agent_name, SERVICE_URL=url)

    assert code == 0, log
    [(token, was_active)] = seen
    assert was_active
    assert not provider.is_active(token)
    assert "outputs: true agents:read true" in log
    assert "The access token is revoked." in log
    [agent] = provider.agents_named(agent_name)
    assert agent["description"] == """two lines and 'quotes', "$HOME" and `id`"""


def test_a_job_that_fails_revokes_all_the_same(act, provider, repository, agent_name, service):
    """With `if: always()`, the revocation step runs after a failure too."""
    provider.policy(repository, branch="main", trustRegistered=True)
    url, seen = service
    workflow = WORKFLOW.replace('echo "outputs: $SAID"', "exit 7")

    code, log = act(workflow, API_URL=provider.url, AGENT_NAME=agent_name, SERVICE_URL=url)

    assert code != 0
    assert not provider.is_active(seen[0][0]), log


@pytest.fixture
def job(environment, github, repository, tmp_path):
    """The variables of a `run:` step, with the runner's files."""
    options = ("--url", github.url, "--repository", repository, "--format", "json")
    variables = json.loads(output_of(BIN / "mock-idp", "env", *options, env=environment))
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_STEP_SUMMARY")}
    temp = tmp_path / "temp"
    temp.mkdir()
    return environment | variables | files | {"RUNNER_TEMP": str(temp)}


def command(job, transcript, *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [BIN / "sentryagent-actions", *arguments], env=job, capture_output=True, text=True, timeout=60
    )
    # No runner applies the masks here, so their lines show the token.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("::add-mask::")]
    transcript.add("the command", "\n".join(lines) + done.stderr)
    return done


def output(job, name: str) -> str:
    """The last value of an output."""
    return re.findall(rf"^{name}<<(\S+)\n(.*)\n\1$", Path(job["GITHUB_OUTPUT"]).read_text(), re.MULTILINE)[
        -1
    ][1]


def test_plain_commands_issue_and_revoke(job, provider, trusted_agent, transcript):
    """Options are the action's inputs; a later command revokes the token and leaves no file."""
    options = ("--api-url", provider.url, "--agent-id", trusted_agent, "--summary", "false")

    issued = command(job, transcript, "issue-token", *options)
    token = output(job, "access-token")
    was_active = provider.is_active(token)
    modes = [file.stat().st_mode & 0o777 for file in Path(job["RUNNER_TEMP"]).rglob("*.state")]
    revoked = command(job, transcript, "revoke")
    again = command(job, transcript, "revoke")

    assert (issued.returncode, revoked.returncode, again.returncode) == (0, 0, 0), issued.stdout
    assert issued.stdout.index(f"::add-mask::{token}") < issued.stdout.index("Issued a token")
    assert was_active
    assert not provider.is_active(token)
    assert modes == [0o600]
    assert list(Path(job["RUNNER_TEMP"]).rglob("*.state")) == []
    assert "Nothing to revoke: no step of this job has issued a token." in again.stdout
    assert not Path(job["GITHUB_STATE"]).exists()
    assert not Path(job["GITHUB_STEP_SUMMARY"]).exists()


def test_a_token_that_is_to_stay_is_in_no_file(job, provider, trusted_agent, transcript):
    """With `--revoke false`, the token is not saved for a later step."""
    command(
        job,
        transcript,
        "issue-token",
        "--api-url",
        provider.url,
        "--agent-id",
        trusted_agent,
        "--revoke",
        "false",
    )
    [kept] = Path(job["RUNNER_TEMP"]).rglob("*.state")

    assert output(job, "access-token") not in kept.read_text()
    assert "`revoke` is false" in command(job, transcript, "revoke").stdout
    assert provider.is_active(output(job, "access-token"))


def test_two_tokens_of_a_job_are_revoked_together(job, provider, trusted_agent, transcript):
    """One `revoke` at the end revokes all tokens of the job."""
    tokens = []
    for _ in range(2):
        command(job, transcript, "issue-token", "--api-url", provider.url, "--agent-id", trusted_agent)
        tokens.append(output(job, "access-token"))

    command(job, transcript, "revoke")

    assert [provider.is_active(token) for token in tokens] == [False, False]


def test_plain_command_registers(job, provider, repository, agent_name, transcript):
    """The command register-agent registers, and with `--update` writes changed inputs."""
    provider.policy(repository)
    options = ("register-agent", "--api-url", provider.url, "--agent-name", agent_name)

    first = command(job, transcript, *options)
    changed = command(job, transcript, *options, "--agent-version", "2.0.0", "--update")

    assert (first.returncode, changed.returncode) == (0, 0), first.stdout + changed.stdout
    assert output(job, "created") == "false"
    [agent] = provider.agents_named(agent_name)
    assert agent["version"] == "2.0.0"


@pytest.mark.parametrize("arguments", [["--agent", "x"], ["extra"], ["--inputs-from", "NOT_SET"]])
def test_a_wrong_command_line_is_a_usage_error(arguments, job, transcript):
    """Options cannot be abbreviated; usage errors are not written to stdout, where the runner looks for commands."""
    done = command(job, transcript, "issue-token", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "sentryagent-actions" in done.stderr
