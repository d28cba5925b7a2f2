"""A job with a hostile workspace and environment: planted modules, start-up files, search paths, credentials.

Whatever an earlier step left in the checked-out repository, in GITHUB_ENV or in HOME, the action runs only its own
code and sends only its own credentials. `test_image.py` tests the same in a container.
"""

import json
import sys
from pathlib import Path

import pytest

from kit.processes import BIN, ROOT, output_of, run

PLANTED = ("json", "ssl", "httpx", "actions_toolkit", "sentryagent_actions", "sitecustomize", "usercustomize")


@pytest.fixture
def trap(tmp_path):
    """The file to which all planted code writes when it runs."""
    return tmp_path / "sprung"


@pytest.fixture
def workspace(tmp_path, trap):
    """A checked-out repository with planted modules, programs, libraries and a home folder with start-up files."""
    workspace = tmp_path / "workspace"
    home = workspace / "home"
    user_site = home / f".local/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    code = f"open({str(trap)!r}, 'a').write(__name__)\n"
    for folder in (workspace, user_site):
        folder.mkdir(parents=True)
        for name in PLANTED:
            (folder / f"{name}.py").write_text(code)
    (user_site / "planted.pth").write_text(f"import sys; {code}")
    (home / ".netrc").write_text("default login planted password planted\n")
    (home / ".pythonrc").write_text(code)
    for program in ("python", "python3", "sh", "env"):
        (workspace / program).write_text(f"#!/bin/sh\necho {program} >> {trap}\n")
        (workspace / program).chmod(0o755)
    (workspace / "_json.so").write_bytes(b"no library")
    return workspace


@pytest.fixture
def hostile(workspace):
    """Variables that an earlier step can add to the environment."""
    home = workspace / "home"
    return {
        "PATH": str(workspace),
        "HOME": str(home),
        "LD_LIBRARY_PATH": str(workspace),
        "PYTHONPATH": str(workspace),
        "PYTHONHOME": str(workspace),
        "PYTHONSTARTUP": str(home / ".pythonrc"),
        "PYTHONUSERBASE": str(home / ".local"),
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONDEVMODE": "1",
        "PYTHONPLATLIBDIR": "planted",
        "NETRC": str(home / ".netrc"),
    }


@pytest.fixture
def job(environment, github, repository, tmp_path):
    """The variables of a job, including the runner's files."""
    options = ("--url", github.url, "--repository", repository, "--format", "json")
    variables = output_of(BIN / "mock-idp", "env", *options, env=environment)
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_STEP_SUMMARY")}
    return json.loads(variables) | files


def entry_point(action: str) -> list[str]:
    """The image's entry point, run with this Python."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    [words] = [line.removeprefix("ENTRYPOINT ") for line in lines if line.startswith("ENTRYPOINT ")]
    return [sys.executable, *json.loads(words)[1:], action]


def start(command, environ, workspace, transcript):
    done = run(*command, env=environ, cwd=workspace)
    # No runner applies the masks here, so their lines show the token.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("::add-mask::")]
    transcript.add("the action", "\n".join(lines) + done.stderr)
    return done


def test_nothing_planted_is_run_or_sent(provider, trusted_agent, hostile, job, workspace, trap, transcript):
    """The action gets its token as in a clean job, and no planted code runs."""
    inputs = {"INPUT_API-URL": provider.url, "INPUT_AGENT-ID": trusted_agent, "INPUT_REVOKE": "false"}

    done = start(entry_point("issue-token"), job | hostile | inputs, workspace, transcript)

    assert done.returncode == 0, done.stdout + done.stderr
    assert not trap.exists(), trap.read_text()
    assert done.stderr == ""
    assert "\ntrue\n" in Path(job["GITHUB_OUTPUT"]).read_text()


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONUSERBASE"])
def test_the_traps_would_spring_without_isolation(variable, hostile, job, workspace, trap, transcript):
    """Without `-I`, the planted code runs, which shows that the test above is meaningful."""
    command = [word for word in entry_point("issue-token") if word != "-I"]
    environ = job | {name: hostile[name] for name in ("HOME", variable)}

    start(command, environ, workspace, transcript)

    assert trap.exists()


def test_files_of_the_workspace_stay_as_they_were(
    provider, trusted_agent, hostile, job, workspace, transcript
):
    """The action leaves no file in the checkout, neither bytecode nor credentials."""
    before = sorted(str(path) for path in workspace.rglob("*"))
    inputs = {"INPUT_API-URL": provider.url, "INPUT_AGENT-ID": trusted_agent, "INPUT_REVOKE": "false"}

    start(entry_point("issue-token"), job | hostile | inputs, workspace, transcript)

    assert sorted(str(path) for path in workspace.rglob("*")) == before
