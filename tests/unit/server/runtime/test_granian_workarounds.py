"""Changes of `serve` to its own process before it starts workers, tested in separate processes."""

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
    """A worker freezes its parent's objects, so that garbage collection does not write to shared memory pages."""
    assert int(output_of(sys.executable, "-c", PARENT)) > 10_000
