"""Processes of the benchmark: start them, wait for them, measure them and end them."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_STOP_SECONDS = 15
TICKS = os.sysconf("SC_CLK_TCK")
"""Clock ticks per second, the kernel's unit of processor time."""
_CLEAN = ("SENTRYAGENT_", "MOCK_IDP_", "VAULT_", "BAO_", "PG")
"""Prefixes of settings that you may have set for these programs; the benchmark starts them with their defaults."""


class Unavailable(Exception):
    """A program cannot be measured on this machine; the message says why."""


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment without settings of the measured programs, plus the given ones."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_CLEAN)} | settings


def run(command: Sequence[str], *, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command and return its output; raises `Unavailable` if it fails."""
    done = subprocess.run(  # noqa: S603 - commands of the benchmark's own
        command, env=environ or environment(), cwd=cwd, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@contextmanager
def running(
    command: Sequence[str], log: Path, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in its own process group for the block; its output goes to a file."""
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - as above
            command, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # A program that was started by another program may have outlived it.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def await_ready(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the program is ready; raises `Unavailable` if it ends or takes 30 s."""
    give_up = time.monotonic() + 30
    while not is_ready():
        if process.poll() is not None or time.monotonic() > give_up:
            raise Unavailable(f"the server did not start: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.05)


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens currently."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def processor_seconds(roots: Iterable[int]) -> float:
    """Return the processor time of these processes and all their descendants, including reaped ones.

    Source: proc(5), /proc/PID/stat.
    """
    times, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in parentheses may contain spaces; the state follows it as field 3.
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid] = int(fields[1])
            times[pid] = sum(map(int, fields[11:15])) / TICKS
    family = set(roots)
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(times.get(pid, 0.0) for pid in family)


def await_quiet(roots: Sequence[int]) -> None:
    """Wait until the processes have finished the work left by a load: less than 5 % of a core, or 20 s."""
    give_up, pause = time.monotonic() + 20, 0.3
    before = processor_seconds(roots)
    while time.monotonic() < give_up:
        time.sleep(pause)
        after = processor_seconds(roots)
        if after - before < 0.05 * pause:
            return
        before = after
