"""The command `python -m bench`: its options, and how it ends."""

import importlib
import signal
import sys

import pytest

from bench.load import LoadFailed

command = importlib.import_module("bench.__main__")


@pytest.fixture
def call(monkeypatch):
    """Call the command with `run` in place of the race; restores the SIGTERM handler afterwards."""
    handler = signal.getsignal(signal.SIGTERM)

    def call(*words, run=lambda *_: None):
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        monkeypatch.setattr(command, "run", run)
        command.main()

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    "words",
    [
        ("--duration", "60"),
        ("--duration", "0.1"),
        ("--duration", "nan"),
        ("--duration", "x"),
        ("--rounds", "0"),
        ("--rounds", "x"),
    ],
)
def test_values_that_cannot_be_measured_are_refused(call, capsys, words):
    """A turn during which tokens would expire, or no turn at all, is refused before anything starts."""
    with pytest.raises(SystemExit) as ended:
        call(*words)

    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_the_race_gets_what_the_command_line_says(call):
    """The command's options reach the race."""
    seen = []

    call("--duration", "1.5", "--rounds", "3", "--only", "SQLite", run=lambda *values: seen.append(values))

    assert seen == [(1.5, 3, "SQLite")]


def test_a_failed_race_is_one_line(call):
    """A failure is reported as one line with its cause."""

    def run(*_):
        raise LoadFailed("oidc-provider: 3 answers without a token")

    with pytest.raises(SystemExit, match=r"^bench: oidc-provider: 3 answers without a token$"):
        call(run=run)


def test_whoever_ends_the_benchmark_ends_its_servers(call):
    """SIGTERM raises an exception in the race, so that all started servers are stopped."""
    stopped = []

    def run(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            stopped.append(True)

    with pytest.raises(SystemExit, match="told to stop"):
        call(run=run)

    assert stopped == [True]
