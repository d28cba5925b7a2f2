"""Workers that cannot start: no fault that passes, so `serve` tries a few times and then says so and ends."""

import signal
import subprocess
import sys

import pytest

from kit.processes import clean_environment, free_port

pytestmark = pytest.mark.xdist_group("faults")

PATIENCE_SECONDS = 30
PROGRAM = """
import os, sys
from sentryagent_idp import serve
from sentryagent_idp.config import Settings
from sentryagent_idp.runtime import granian_workarounds

def load(settings):
    raise RuntimeError("this worker cannot start")

serve.load = load
granian_workarounds._PAUSE_SECONDS = float(sys.argv[1])
serve.serve(Settings.from_environ(os.environ, {"workers": "2"}))
"""


@pytest.fixture
def serve(tmp_path):
    """Start a provider whose workers cannot start, with so many seconds between two starts."""
    environ = clean_environment(PORT=free_port(), DATABASE_URL=f"sqlite:///{tmp_path}/provider.db")

    def start(pause):
        command = [sys.executable, "-c", PROGRAM, str(pause)]
        return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)

    return start


def test_workers_that_never_start_end_the_replica(serve):
    """Exit code 1 after a few starts, with the cause and one last line that says so."""
    with serve(pause=0) as process:
        _, log = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 1
    assert "this worker cannot start" in log
    assert log.count("starting all of them again") == 4
    assert "workers keep dying, giving up" in log.splitlines()[-1]


def test_it_ends_when_it_is_told_to_between_two_starts(serve):
    """SIGTERM while no worker runs ends it in order and at once."""
    with serve(pause=PATIENCE_SECONDS) as process:
        for line in process.stderr:
            if "starting all of them again" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS / 2)

    assert process.returncode == 0
