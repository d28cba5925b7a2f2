"""What `serve` does to its own process before it starts workers, each time in a process that may be changed."""

import subprocess
import sys

import pytest

PARENT = """
import gc, multiprocessing
from sentryagent_idp.runtime import granian_workarounds
granian_workarounds.share_what_is_loaded()
worker = multiprocessing.Process(target=lambda: print(gc.get_freeze_count()))
worker.start()
worker.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are copies of their parent on Linux only")
def test_workers_leave_what_their_parent_loaded_alone():
    """In a worker the objects of its parent are frozen, so that a collection writes to none of the shared pages."""
    answer = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=True)

    assert int(answer.stdout) > 10_000
