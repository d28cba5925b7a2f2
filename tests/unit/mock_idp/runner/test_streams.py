import os
import signal
import subprocess
import sys

import pytest

from mock_idp.runner.streams import lines_of


def _start(code):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_both_streams_are_read_to_their_end():
    """Both kinds of line ends are removed, an unfinished line counts, and invalid UTF-8 is replaced."""
    code = "import os; os.write(1, b'a\\r\\n\\nb\\xff'); os.write(2, b'c\\n')"

    with _start(code) as process:
        lines = sorted(lines_of(process))

    assert lines == ["", "a", "b\ufffd", "c"]


@pytest.mark.parametrize("grandchild", [["sleep", "60"], ["sh", "-c", "while :; do echo x; done"]])
def test_a_grandchild_that_keeps_a_stream_open_does_not_hold_the_step(grandchild):
    """The step ends with its process after the grace period, whether the grandchild writes or not."""
    # One write, so that the grandchild's output cannot split it.
    code = f"import os, subprocess; os.write(1, b'pid %d\\n' % subprocess.Popen({grandchild}).pid)"

    with _start(code) as process:
        lines = list(lines_of(process, grace_seconds=0.5))
        pid = next(line for line in lines if line.startswith("pid"))
        os.kill(int(pid.split()[1]), signal.SIGKILL)

    assert process.returncode == 0
