"""What `serve` does to its own process before it starts workers, each time in a process that may be changed."""

import sys

import pytest

from kit.processes import output_of

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
    assert int(output_of(sys.executable, "-c", PARENT)) > 10_000
