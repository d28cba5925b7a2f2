"""A running mock for each test, and its command line in this process."""

import signal
import sys
from pathlib import Path

import pytest

from mock_idp.cli.main import main
from mock_idp.http.tls import make_certificate
from mock_idp.server import MockIdp
from mock_idp.signing_keys import make_ring


@pytest.fixture(scope="session")
def ring():
    """Keys for all mocks of the session: making them is the slow part."""
    return make_ring()


@pytest.fixture
def idp(ring):
    """A mock on a free port."""
    with MockIdp(ring=ring) as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A throw-away certificate for this machine and for GitHub's own issuer."""
    return make_certificate(["token.actions.githubusercontent.com"], tmp_path_factory.mktemp("tls"))


@pytest.fixture
def sample_action():
    """An action folder with a Dockerfile, a main stage and a post stage."""
    return Path(__file__).parent / "sample_action"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `mock-idp` with words; exit code, stdout and stderr. Its signal handlers end with the test."""
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
