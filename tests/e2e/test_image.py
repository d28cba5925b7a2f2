"""The actions' image in the real Docker engine: its contents, and its isolation from a hostile environment."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit.docker import CLASSIC, docker, new_tag
from kit.processes import BIN, output_of, run

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("docker"),
    pytest.mark.usefixtures("docker_engine"),
]

MEGABYTE = 1_000_000
FILES = {"output": "GITHUB_OUTPUT", "state": "GITHUB_STATE", "summary": "GITHUB_STEP_SUMMARY"}
PLANTED = "open('/github/workspace/planted', 'a').write(__name__)\nraise SystemExit('planted code ran')\n"
# Modules of the checked-out repository, with names that Python or the action imports.
MODULES = ("json", "httpx", "ssl", "sitecustomize", "usercustomize", "sentryagent_actions", "certifi")
HOSTILE = {
    "HOME": "/nowhere",
    "PATH": "/github/workspace",
    "PYTHONPATH": "/github/workspace",
    "PYTHONSTARTUP": "/github/workspace/json.py",
    "PYTHONHOME": "/github/workspace",
    "PYTHONINSPECT": "1",
    "PYTHONUSERBASE": "/github/workspace",
    "LD_LIBRARY_PATH": "/github/workspace",
    "BASH_ENV": "/github/workspace/json.py",
    "ENV": "/github/workspace/json.py",
}


@pytest.fixture(scope="module")
def image(checkout):
    """The image, built once with the classic builder, which act and older engines use."""
    with new_tag("sentryagent-actions-test") as tag:
        docker("build", "-q", "-t", tag, checkout, env=CLASSIC)
        yield tag


def in_image(image, code):
    """Run code in the image's Python and return its output."""
    return docker(
        "run", "--rm", "--network=none", "--entrypoint=/usr/local/bin/python", image, "-I", "-c", code
    )


@dataclass(frozen=True)
class Runner:
    """The folders that GitHub's runner mounts."""

    workspace: Path
    commands: Path

    def mounts(self):
        return (f"-v{self.workspace}:/github/workspace", f"-v{self.commands}:/github/file_commands")

    def variables(self):
        return {variable: f"/github/file_commands/{name}" for name, variable in FILES.items()}

    def output(self, name):
        text = (self.commands / "output").read_text()
        return re.search(rf"^{name}<<(\S+)\n(.*)\n\1$", text, re.MULTILINE)[2]


@pytest.fixture
def runner(tmp_path):
    """The folders of a step, with a hostile repository checked out."""
    runner = Runner(tmp_path / "workspace", tmp_path / "commands")
    for folder in (runner.workspace, runner.commands):
        folder.mkdir()
    for name in FILES:
        (runner.commands / name).touch()
    for name in MODULES:
        (runner.workspace / f"{name}.py").write_text(PLANTED)
    python = runner.workspace / "python"
    python.write_text("#!/bin/sh\ntouch /github/workspace/planted\n")
    python.chmod(0o755)
    return runner


def test_the_image_adds_little_to_its_base(image):
    """The image is less than 25 MB larger than its base."""
    base = docker("image", "inspect", "--format={{.Size}}", "python:3.13-slim")
    size = docker("image", "inspect", "--format={{.Size}}", image)
    assert 0 < int(size) - int(base) < 25 * MEGABYTE


def test_the_image_has_what_the_action_needs_and_no_more(image):
    """The image contains the action's few libraries, but no framework, crypto library or build cache."""
    absent = ("flask", "cryptography", "github", "requests", "jwt", "sentryagent_idp", "mock_idp", "yaml")
    present = ("sentryagent_actions", "httpx", "actions_toolkit")
    code = f"""
import importlib.util, json, pathlib
found = [name for name in {absent + present} if importlib.util.find_spec(name)]
caches = [str(path) for path in map(pathlib.Path, (pathlib.Path.home() / ".cache", "/tmp/pip")) if path.exists()]
print(json.dumps([found, caches]))
"""
    assert json.loads(in_image(image, code)) == [list(present), []]


def test_a_hostile_environment_changes_nothing(
    image, runner, github, provider, repository, trusted_agent, transcript
):
    """A read-only container issues a token despite planted modules and variables for Python, shells and the loader."""
    job = ["--url", github.url, "--repository", repository, "--format", "json"]
    variables = json.loads(output_of(BIN / "mock-idp", "env", *job))
    inputs = {"INPUT_API-URL": provider.url, "INPUT_AGENT-ID": trusted_agent, "INPUT_REVOKE": "false"}
    environ = variables | inputs | runner.variables() | HOSTILE
    names = [word for name in environ for word in ("-e", name)]
    options = ["--rm", "--read-only", "--network=host", "--workdir=/github/workspace", *runner.mounts()]
    # As on the runner, docker is started by its path, and inherits the container's variables.
    done = run(shutil.which("docker"), "run", *options, *names, image, "issue-token", env=environ)
    transcript.add("stderr of the container", done.stderr)

    assert done.returncode == 0, done.stderr
    assert not (runner.workspace / "planted").exists()
    assert provider.verify(runner.output("access-token"))["sub"] == trusted_agent
    assert re.fullmatch(r"revoke<<(\S+)\nfalse\n\1\n", (runner.commands / "state").read_text())


def test_the_process_engine_shows_what_the_image_does(
    provider, repository, agent_name, run_action, run_in_docker
):
    """`mock-idp run` produces the same outputs, state and post step with and without Docker."""
    provider.policy(repository, trustRegistered=True)
    run_action("", {"agent-name": agent_name})

    process, container = (it("", {"agent-name": agent_name}) for it in (run_action, run_in_docker))

    assert container.outcome == process.outcome == "success", container.log
    changing = {"access-token", "expires-at"}
    assert container.outputs.keys() == process.outputs.keys() >= changing
    assert all(
        container.outputs[name] == process.outputs[name] for name in container.outputs.keys() - changing
    )
    assert not provider.is_active(container.outputs["access-token"])
    assert container.state.keys() == process.state.keys()
    for step in (process, container):
        assert "The access token is revoked." in step.log


def test_a_refusal_reads_the_same_in_a_container(trusted_agent, run_action, run_in_docker):
    """The annotation and the outputs of a failure are the same in both engines, except for the request id."""
    inputs = {"agent-id": trusted_agent, "scope": "agents:write"}

    process, container = (it("issue-token", inputs) for it in (run_action, run_in_docker))

    assert container.exit_code == process.exit_code == 1
    request_ids = [it.outputs.pop("request-id") for it in (process, container)]
    assert container.outputs == process.outputs
    messages = [
        it.only_annotation()["message"].replace(request_id, "")
        for it, request_id in zip((process, container), request_ids, strict=True)
    ]
    assert messages[0] == messages[1]
