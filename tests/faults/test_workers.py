"""The supervisor and its workers: workers that cannot start, signals at unusual moments, and a killed supervisor."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from kit.processes import Served, clean_environment, free_port, run, wait_until

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
    """Start a provider whose workers cannot start, with `pause` seconds between two starts."""
    environ = clean_environment(PORT=free_port(), DATABASE_URL=f"sqlite:///{tmp_path}/provider.db")

    def start(pause):
        command = [sys.executable, "-c", PROGRAM, str(pause)]
        return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)

    return start


def test_workers_that_never_start_end_the_replica(serve):
    """After a few starts, the replica exits with code 1, and logs the cause and that it gives up."""
    with serve(pause=0) as process:
        _, log = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 1
    assert "this worker cannot start" in log
    assert log.count("restarting all workers") == 4
    assert "workers keep dying; giving up" in log.splitlines()[-1]


def test_it_ends_when_it_is_told_to_between_two_starts(serve):
    """SIGTERM while no worker runs stops the replica cleanly and at once."""
    with serve(pause=PATIENCE_SECONDS) as process:
        for line in process.stderr:
            if "restarting all workers" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS / 2)

    assert process.returncode == 0


SLOW = """
import os, signal
from granian.server import mp
from sentryagent_idp import serve
from sentryagent_idp.config import Settings

def begin(*_):
    print("begun", flush=True)
    signal.pause()

mp.configure_logging = begin  # the first thing that a worker does
serve.serve(Settings.from_environ(os.environ, {"workers": "1"}))
"""


def test_a_worker_that_has_just_begun_is_ended(tmp_path):
    """SIGTERM ends a worker before it has loaded anything; the supervisor's handler, which it inherits, would ignore it."""
    environ = clean_environment(PORT=free_port(), DATABASE_URL=f"sqlite:///{tmp_path}/provider.db")
    with subprocess.Popen([sys.executable, "-c", SLOW], env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        # Less than the 30 s after which a worker is killed.
        assert process.wait(PATIENCE_SECONDS / 2) == 0


INTERRUPTED = """
import os, signal, sys
from sentryagent_idp import serve
from sentryagent_idp.config import Settings

def interrupt(frame, event, _):
    if event == "line":
        signal.raise_signal(signal.SIGTERM)
    return interrupt

def trace(frame, *_):
    is_wait = frame.f_code.co_name == "wait" and frame.f_back.f_code.co_name == "_serve_loop"
    return interrupt if is_wait else None

sys.settrace(trace)
serve.serve(Settings.from_environ(os.environ, {"workers": "1"}))
"""


def test_signals_at_any_moment_end_it(tmp_path):
    """SIGTERM at each line of the supervisor's wait, for example a second SIGTERM, must never make it hang."""
    environ = clean_environment(PORT=free_port(), DATABASE_URL=f"sqlite:///{tmp_path}/provider.db")
    done = run(sys.executable, "-c", INTERRUPTED, env=environ, timeout=PATIENCE_SECONDS)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.fixture
def served(tmp_path):
    environ = clean_environment(
        DATABASE_URL=f"sqlite:///{tmp_path}/provider.db", GITHUB_ISSUER="http://127.0.0.1:9"
    )
    with Served(tmp_path / "log", environ, "--workers", "2") as provider:
        yield provider


def test_workers_end_with_their_supervisor(served):
    """If only the supervisor is killed, for example when memory runs out, the port is free at once for a restart."""
    killed = served.process
    killed.kill()
    killed.wait()
    try:
        wait_until(served.is_closed, "the end of the workers")
        served.start()
        served.wait_until_ready()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(killed.pid, signal.SIGKILL)
