"""Log lines, and requests that continue when one cannot be written."""

import io
import json
import sys

import pytest
import structlog

from kit.processes import output_of
from sentryagent_idp.runtime import logs


class Stderr:
    """Standard error with this buffer."""

    def __init__(self, buffer):
        self.buffer = buffer


class Full(io.BytesIO):
    """A file on a full disk."""

    def flush(self):
        raise OSError(28, "No space left on device")


@pytest.fixture
def logged(monkeypatch):
    """Write one line of each level to a buffer, with the configured level."""

    def write(buffer, level="info"):
        monkeypatch.setattr("sys.stderr", Stderr(buffer))
        logs.configure(level)
        log = structlog.get_logger()
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)("answered", status=200)
        log.log(20, "answered", status=200)
        return [json.loads(line) for line in buffer.getvalue().splitlines()]

    yield write
    structlog.reset_defaults()


def test_a_line_is_a_json_object(logged):
    """Lines are JSON objects, and those below the configured level are dropped."""
    lines = logged(io.BytesIO(), "warning")

    assert [(line["level"], line["event"], line["status"]) for line in lines] == [
        ("warning", "answered", 200),
        ("error", "answered", 200),
    ]


def test_a_line_that_cannot_be_written_stops_nothing(logged):
    """A full disk must not lose the response of an exchange, whose token is already used up."""
    assert len(logged(Full())) == 4


FORKED = """
import multiprocessing, os, sys, threading
import structlog
from sentryagent_idp.runtime import logs

class Stderr:
    def __init__(self):
        self.buffer = self

    def write(self, _):
        if threading.current_thread() is writer:
            begun.set()
            forking.wait()

    def flush(self):
        pass

begun, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)  # the newest runs first
sys.setswitchinterval(60)  # the thread goes on when the fork waits for it, and not before
sys.stderr = Stderr()
logs.configure("info")
log = structlog.get_logger()
writer = threading.Thread(target=log.info, args=["of the thread"])
writer.start()
begun.wait()
child = multiprocessing.get_context("fork").Process(target=log.info, args=["of the child"])
child.start()
child.join(10)
print(child.exitcode, flush=True)
child.kill()
"""


def test_a_process_that_is_forked_while_a_thread_logs_can_log():
    """A child forked while another thread logs does not wait forever for that thread's lock."""
    assert output_of(sys.executable, "-W", "ignore", "-c", FORKED) == "0\n"
