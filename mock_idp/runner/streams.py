"""Read both output streams of a process, line by line as they arrive."""

from __future__ import annotations

import queue
import threading
import time
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

GRACE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1


def lines_of(process: subprocess.Popen[bytes], grace_seconds: float = GRACE_SECONDS) -> Iterator[str]:
    """Yield the lines of stdout and stderr without their line ends, in the order in which they arrive.

    Ends with the streams or, if a grandchild keeps one open, `grace_seconds` after the process, as the runner does.
    """
    arrived: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    streams = [stream for stream in (process.stdout, process.stderr) if stream]
    for stream in streams:
        threading.Thread(target=_pump, args=(stream, arrived), daemon=True).start()
    open_streams, deadline = len(streams), float("inf")
    while open_streams and time.monotonic() < deadline:
        # Checked for each line: a grandchild that never stops writing must not hold up the step either.
        if deadline == float("inf") and process.poll() is not None:
            deadline = time.monotonic() + grace_seconds
        try:
            line = arrived.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            open_streams -= 1
        else:
            yield _text(line)
    # Lines that came in time are shown, even if a flood of lines has kept this loop busy.
    for line in [arrived.get_nowait() for _ in range(arrived.qsize())]:
        if line is not None:
            yield _text(line)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


def _pump(stream: IO[bytes], arrived: queue.SimpleQueue[bytes | None]) -> None:
    try:
        with stream:
            for line in stream:
                arrived.put(line)
    except ValueError:
        # The code that started the process has closed the stream, without waiting for a grandchild that still holds it.
        return
    finally:
        arrived.put(None)
