"""The code blocks of the mock's manual, run unchanged, work as a reader expects."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

import mock_idp
from kit.processes import BIN, PATIENCE_SECONDS, clean_environment, free_port, output_of

MANUAL = (Path(mock_idp.__file__).parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```\w+\n(.*?)^```$", MANUAL, re.MULTILINE | re.DOTALL)
DEPLOY = """#!/bin/sh
curl -s -H "Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=x"
"""
WORKFLOW = """name: Deploy
on: push
jobs:
  deploy:
    runs-on: ubuntu-latest
    steps:
      - run: |
          curl -s -H "Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=x"
"""
PYTEST_SERVICE = """
import os, urllib.request, json
import jwt, pytest
from types import SimpleNamespace

@pytest.fixture
def my_service(mock_idp):
    def log_in():
        url = os.environ["ACTIONS_ID_TOKEN_REQUEST_URL"] + "&audience=https://id.example.com"
        bearer = {"Authorization": "bearer " + os.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]}
        with urllib.request.urlopen(urllib.request.Request(url, headers=bearer)) as answer:
            token = json.load(answer)["value"]
        key = jwt.PyJWKClient(mock_idp.issuer + "/.well-known/jwks").get_signing_key_from_jwt(token)
        jwt.decode(token, key, ["RS256"], audience="https://id.example.com", issuer=mock_idp.issuer)
        return SimpleNamespace(ok=True)
    return SimpleNamespace(log_in=log_in)
"""
# Blocks that other tests run: the container's in tests/e2e/test_mock_image.py, the attack's in test_attack.py.
ELSEWHERE = ("docker build", "mock-idp attack", "WRONG padded")


# A text that identifies each block.
WORDS = {
    "exec": "mock-idp exec",
    "act": "mock-idp act",
    "run": "--input audience=",
    "run in docker": "--engine docker",
    "env": 'eval "$(mock-idp env',
    "control API": "mock keys/rotate",
    "python": "with MockIdp() as idp",
    "pytest": "def test_my_service_accepts_a_job",
}


def block(name):
    """A block of the manual, by name."""
    [found] = [text for text in BLOCKS if WORDS[name] in text]
    return found


@pytest.fixture
def project(tmp_path, sample_action):
    """A reader's folder: a checkout with a program, a workflow and an action."""
    folder = tmp_path / "rocket"
    shutil.copytree(sample_action, folder / "my-action")
    (folder / ".github" / "workflows").mkdir(parents=True)
    (folder / ".github" / "workflows" / "deploy.yml").write_text(WORKFLOW)
    (folder / "deploy.sh").write_text(DEPLOY)
    (folder / "deploy.sh").chmod(0o755)
    git = ("git", "-C", folder, "-c", "user.name=mona", "-c", "user.email=mona@example.com")
    output_of("git", "init", "-q", "-b", "trunk", folder)
    output_of(*git, "remote", "add", "origin", "git@github.com:acme/rocket.git")
    output_of(*git, "add", ".")
    output_of(*git, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def paste(project, tmp_path):
    """Paste a block into bash, with a free port for the mock, and return its output."""
    home = tmp_path / "home"
    (home / ".config" / "act").mkdir(parents=True)
    (home / ".config" / "act" / "actrc").write_text("-P ubuntu-latest=-self-hosted\n")
    # An HTTP error fails the block, because a reader would notice it.
    (home / ".curlrc").write_text("fail-with-body\n")
    port = free_port()
    mock = {"MOCK_IDP_PORT": str(port), "MOCK_IDP_URL": f"http://127.0.0.1:{port}"}

    def paste(text, **environment):
        environ = (
            clean_environment()
            | {"HOME": str(home), "TMPDIR": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"}
            | environment
        )
        with subprocess.Popen(
            ["bash", "-e", "-c", text], cwd=project, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        ) as shell:  # fmt: skip
            code = shell.wait(PATIENCE_SECONDS)
            # The block's background processes keep the pipe open.
            if "&\n" in text:
                os.killpg(shell.pid, signal.SIGTERM)
            out = shell.stdout.read()
        assert code == 0, out
        return out

    paste.mock = mock
    return paste


def _claims(token):
    return jwt.decode(token, options={"verify_signature": False})


def test_every_block_is_run_somewhere():
    """Every block of the manual is run by a test."""
    here = Path(__file__).read_text("utf-8")

    missed = [text for text in BLOCKS if not any(word in text for word in (*WORDS.values(), *ELSEWHERE))]
    assert [name for name in WORDS if f'block("{name}")' not in here] == []
    assert missed == []


def test_a_command_becomes_a_job(paste):
    """The command runs as a job of the checkout, without a separate mock."""
    claims = _claims(json.loads(paste(block("exec")))["value"])

    assert claims["sub"] == "repo:acme/rocket:environment:production"
    assert (claims["ref"], claims["aud"]) == ("refs/heads/trunk", "x")


@pytest.mark.docker
@pytest.mark.xdist_group("docker")
def test_a_workflow_gets_its_token(paste):
    """A workflow in act, which has no OIDC itself, gets its token."""
    out = paste(block("act"))

    claims = _claims(re.search(r'"value":"([^"]+)"', out)[1])
    assert (claims["sub"], claims["workflow"]) == ("repo:acme/rocket:ref:refs/heads/trunk", "Deploy")


def test_an_action_runs_next_to_a_mock_that_is_just_starting(paste):
    """The block's second line works although the mock of its first line is still starting."""
    assert "the token is ***" in paste(block("run"), **paste.mock)


@pytest.mark.docker
def test_an_action_runs_in_a_container(paste, project):
    """The action runs in a container and writes its result to the file that the block names."""
    paste(block("run in docker"), **paste.mock)

    assert json.loads((project / "result.json").read_text())["outcome"] == "success"


def test_a_token_is_asked_for_by_hand(paste):
    """After `eval` of the variables, a token can be requested with curl."""
    out = paste(block("env"), **paste.mock)

    assert _claims(re.search(r'"value":"([^"]+)"', out)[1])["environment"] == "production"


def test_the_control_api_is_as_the_manual_says(paste):
    """The mock accepts every line of the control API's block."""
    started = "mock-idp serve &\nmock-idp env >/dev/null\n"
    out = paste(started + block("control API"), **paste.mock)

    assert '"status":"ok"' in out


def test_the_python_block_mints_what_its_comments_say():
    """The Python block mints consistent tokens and an expired one."""
    names = {}
    exec(compile(block("python"), "README.md", "exec"), names)

    assert _claims(names["good"])["sub"] == "repo:octo-org/hello-agent:environment:production"
    assert _claims(names["other"])["sub"] == "repo:octo-org/hello-agent:ref:refs/heads/topic"
    assert _claims(names["bad"])["exp"] < _claims(names["good"])["iat"]
    assert names["job"].keys() >= {"requestUrl", "requestToken", "variables", "event"}


def test_the_pytest_block_passes(tmp_path):
    """The pytest block passes in a project whose service verifies tokens."""
    (tmp_path / "conftest.py").write_text(PYTEST_SERVICE)
    (tmp_path / "test_service.py").write_text(block("pytest"))
    environ = os.environ | {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mock_idp.pytest_plugin")
    assert "1 passed" in output_of(sys.executable, *words, cwd=tmp_path, env=environ)
