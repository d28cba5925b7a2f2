"""The machine and the programs that the figures were measured on."""

import os
import platform
import re
import shlex
import shutil
import statistics
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench import wrk
from bench.processes import TICKS, Unavailable, run

_WRITES = 200


def describe(folder: Path) -> dict[str, str]:
    """Describe the machine, the disk with the servers' data, and the programs that all servers share."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "processor": f"{_processor()}, {os.cpu_count()} cores, shared by servers, load and signing",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": python(),
        "write and sync of 4 KiB": f"{1000 * _sync_seconds(folder):.2f} ms (median of {_WRITES})",
        "load generator": "wrk; at half load, sockets of this benchmark in a separate process"
        if wrk.program()
        else "sockets of this benchmark",
    }


def _busy_seconds() -> float:
    """Return the processor time of the whole machine without idle time and I/O wait (proc(5), /proc/stat)."""
    user, nice, system, _idle, _wait, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / TICKS


@dataclass(frozen=True, slots=True)
class Strangers:
    """The processor time of programs other than the benchmark's, from the creation of this object."""

    began: float = field(default_factory=time.monotonic)
    busy: float = field(default_factory=_busy_seconds)

    def share(self, own_seconds: float) -> float:
        """Return their share of all cores since then; `own_seconds` is the processor time of the benchmark's programs."""
        cores = os.cpu_count() or 1
        taken = _busy_seconds() - self.busy - own_seconds
        return max(0.0, taken / (time.monotonic() - self.began) / cores)


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


def python() -> str:
    """Return version and build of this Python, which the provider also uses: its speed depends on both.

    Only the options of `configure` show how a build was optimised, and a package may not show them: Debian's Python has
    profile-guided optimisation without any of them.
    """
    options = shlex.split(sysconfig.get_config_var("CONFIG_ARGS"))
    chosen = [it for it in options if it.startswith(("--enable-optimizations", "--with-lto"))]
    if chosen:
        build = f"configured with {' '.join(chosen)}"
    elif sys.base_prefix == "/usr":
        build = "the system's package; its options do not show how it was optimised"
    else:
        build = "configured without --enable-optimizations"
    return f"{platform.python_version()}, {platform.python_compiler()}, {build}"


def _sync_seconds(folder: Path) -> float:
    """Return how long the disk takes to sync a page: every durable token waits for that."""
    path, taken = folder / "sync", []
    with path.open("wb", buffering=0) as file:
        for _ in range(_WRITES):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(taken)
