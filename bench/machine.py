"""What the figures were measured on."""

import os
import platform
import re
import shutil
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from bench import wrk
from bench.processes import Unavailable, run

_WRITES = 200


def facts(folder: Path) -> dict[str, str]:
    """The machine, its disk where the servers' data lie, and the programs that every server shares."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "processor": f"{_processor()}, {os.cpu_count()} cores, shared by servers, load and signing",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "write and sync of 4 KiB": f"{1000 * _sync_seconds(folder):.2f} ms (median of {_WRITES})",
        "load before the start": f"{os.getloadavg()[0]:.1f}",
        "load generator": "wrk; at half load sockets of this benchmark"
        if wrk.program()
        else "sockets of this benchmark",
    }


def _commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    try:
        return run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent).strip()
    except Unavailable:
        return "unknown"


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _sync_seconds(folder: Path) -> float:
    """How long the disk takes to keep a page for good: what every durable token waits for."""
    path, taken = folder / "sync", []
    with path.open("wb", buffering=0) as file:
        for _ in range(_WRITES):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(taken)
