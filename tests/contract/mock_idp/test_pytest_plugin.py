"""The pytest plugin in another project, run by a separate pytest."""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from mock_idp import pytest_plugin

USER_TESTS = """
import json
import os
import urllib.request
from pathlib import Path

import pytest
from mock_idp import InvalidFieldError
from mock_idp.pytest_plugin import GithubOidcEnv

seen = []


def ask(variables, audience):
    request = urllib.request.Request(
        variables["ACTIONS_ID_TOKEN_REQUEST_URL"] + "&audience=" + audience,
        headers={"Authorization": "bearer " + variables["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]},
    )
    with urllib.request.urlopen(request) as response:
        return response.status


def test_a_job_asks_for_a_token(mock_idp, github_oidc_env):
    variables = github_oidc_env(environment="production", repository="acme/bot")
    assert os.environ["GITHUB_REPOSITORY"] == "acme/bot"
    assert "GITHUB_HEAD_SHA_OF_ANOTHER_JOB" not in os.environ
    assert ask(os.environ, "x") == 200
    assert mock_idp.minted(audience="x").once()["repository"] == "acme/bot"
    assert os.listdir(os.environ["GITHUB_WORKSPACE"]) == []
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        assert Path(os.environ[name]).read_text() == ""
    event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text())
    assert event["repository"]["full_name"] == "acme/bot"
    assert os.environ["GITHUB_ACTION"] and os.path.isdir(os.environ["RUNNER_TEMP"])
    with pytest.raises(InvalidFieldError):
        github_oidc_env(enviroment="production")
    mock_idp.rotate()
    mock_idp.freeze(1)
    mock_idp.plan_fault("jwks", status=503)
    seen.append((mock_idp.url, variables["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]))


def test_the_next_one_finds_the_mock_as_new(mock_idp):
    assert "ACTIONS_ID_TOKEN_REQUEST_URL" not in os.environ
    assert os.environ["GITHUB_HEAD_SHA_OF_ANOTHER_JOB"] == "1"
    assert (len(mock_idp.minted()), mock_idp.jwks_fetches) == (0, 0)
    assert urllib.request.urlopen(mock_idp.url + "/.well-known/jwks").status == 200
    if seen:
        assert seen[0][0] == mock_idp.url
    assert len(mock_idp.state.ring.published) == 2


def test_both_forms_of_the_subject(mock_idp, mock_idp_sub_form):
    assert mock_idp.job(**mock_idp_sub_form)["jobId"]
"""


@pytest.fixture
def user_pytest(tmp_path):
    """Run pytest in a new folder, with the plugin and without this repository's settings."""

    def run(*words, files):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        environ = os.environ | {
            "GITHUB_HEAD_SHA_OF_ANOTHER_JOB": "1",
            "PYTEST_ADDOPTS": "",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        plugins = ["-p", "no:cacheprovider", "-p", "mock_idp.pytest_plugin"]
        command = [sys.executable, "-m", "pytest", "-q", *plugins, "-W", "error", *words]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("words", [(), ("-p", "xdist", "-n", "2")])
def test_each_test_has_a_fresh_mock_and_a_jobs_environment(user_pytest, words):
    """Each test has a reset mock and a job's environment, even with two workers of pytest-xdist."""
    done = user_pytest(*words, files={"test_user.py": USER_TESTS})

    assert "4 passed" in done.stdout, done.stdout


def test_pytest_finds_the_plugin_by_itself():
    """Pytest finds the plugin through its entry point."""
    [entry] = entry_points(group="pytest11", name="mock_idp")

    assert entry.load() is pytest_plugin


def test_the_issuer_can_be_chosen(user_pytest):
    """A project chooses the issuer by overriding a fixture in its conftest.py."""
    conftest = 'import pytest\n\n@pytest.fixture(scope="session")\ndef mock_idp_issuer():\n    return "/_services/token"\n'
    test = "def test_issuer(mock_idp):\n    assert mock_idp.issuer == mock_idp.url + '/_services/token'\n"

    done = user_pytest(files={"conftest.py": conftest, "test_user.py": test})

    assert "1 passed" in done.stdout, done.stdout


def test_nothing_is_imported_before_a_test_asks(user_pytest):
    """A run that does not use the mock imports neither its other modules nor Flask nor cryptography."""
    test = (
        "import sys\n\ndef test_light():\n"
        "    heavy = {'flask', 'werkzeug', 'cryptography', 'mock_idp.server', 'mock_idp.issuer'}\n"
        "    assert 'mock_idp.pytest_plugin' in sys.modules\n    assert not heavy & sys.modules.keys()\n"
    )

    done = user_pytest(files={"test_user.py": test})

    assert "1 passed" in done.stdout, done.stdout


def test_the_fixtures_tell_what_they_are_for(user_pytest):
    """`pytest --fixtures` shows a description of each fixture."""
    done = user_pytest("--fixtures", files={})

    for name in ("mock_idp", "mock_idp_server", "mock_idp_issuer", "mock_idp_sub_form", "github_oidc_env"):
        assert re.search(rf"^{name}( \[session scope\])? -- ", done.stdout, re.MULTILINE), name
