"""A running mock for each test, and the command `mock-idp` in this process."""

import shutil
import signal
import sys
from pathlib import Path

import pytest

from kit.processes import output_of, run
from mock_idp.cli import job_options
from mock_idp.cli.main import main
from mock_idp.http.tls import make_certificate
from mock_idp.server import MockIdp
from mock_idp.signing_keys import make_ring

NPM_PACKAGES = ("@actions/core", "jose", "openid-client")


@pytest.fixture(scope="session")
def ring():
    """Keys for all mocks of the session, because generating them is slow."""
    return make_ring()


@pytest.fixture
def idp(ring):
    """A mock on a free port."""
    with MockIdp(ring=ring) as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A temporary certificate for this machine and for GitHub's own issuer."""
    return make_certificate(["token.actions.githubusercontent.com"], tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def npm_packages(tmp_path_factory):
    """A folder with third-party clients, installed from the machine's npm registry."""
    folder = tmp_path_factory.mktemp("node")
    if shutil.which("npm") is None:
        pytest.skip("node: no npm on PATH")
    quiet = ("--no-save", "--silent", "--no-audit", "--no-fund", "--ignore-scripts")
    done = run("npm", "install", *quiet, *NPM_PACKAGES, cwd=folder, timeout=120)
    if done.returncode:
        pytest.skip(f"node: npm cannot install {', '.join(NPM_PACKAGES)}: {done.stderr.strip()[-200:]}")
    return folder


@pytest.fixture
def checkout(tmp_path):
    """A checkout of acme/rocket with one commit, and a function that runs git in it."""
    folder = tmp_path / "checkout"
    config = ("-c", "user.name=mona", "-c", "user.email=mona@example.com")
    output_of("git", "init", "-q", "-b", "trunk", folder)

    def git(*words):
        return output_of("git", "-C", folder, *config, *words).strip()

    git("remote", "add", "origin", "https://mona:secret@github.com/acme/rocket.git")
    git("commit", "-q", "--allow-empty", "-m", "first")
    return folder, git


@pytest.fixture
def sample_action():
    """An action folder with a Dockerfile, a main stage and a post stage."""
    return Path(__file__).parent / "sample_action"


@pytest.fixture
def command(monkeypatch, capsys, tmp_path_factory):
    """Run `mock-idp` and return exit code, stdout and stderr; restores the signal handlers afterwards."""
    # `env` does not remove its temporary folder.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
    # Do not wait for a mock that does not run.
    monkeypatch.setattr(job_options, "PATIENCE_SECONDS", 0)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def command(*words, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["mock-idp", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    yield command
    for number, handler in handlers.items():
        signal.signal(number, handler)
