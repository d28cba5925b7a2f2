"""Starting, awaiting and stopping programs that listen on 127.0.0.1."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
BACKGROUND = "sentryagent-bg"
"""The name of the provider's background process in `ps`."""
PATIENCE_SECONDS = 60
"""The time after which waiting for a process fails."""


def free_port() -> int:
    """A free port on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def clean_environment(**settings: object) -> dict[str, str]:
    """This process's environment with these `SENTRYAGENT_` settings and no others of a provider, a mock or a job."""
    ours = ("SENTRYAGENT_", "MOCK_IDP_", "ACTIONS_", "GITHUB_", "INPUT_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return environ | {f"SENTRYAGENT_{name}": str(value) for name, value in settings.items()}


def wait_until(
    ask: Callable[[], Any],
    what: str,
    *,
    process: subprocess.Popen[Any] | None = None,
    log: Callable[[], str] = str,
    pause: float = 0.05,
) -> Any:
    """Poll `ask` until its result is true, and return that; a failed connection counts as false."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / pause)):
        if process and process.poll() is not None:
            break
        with contextlib.suppress(OSError, httpx.TransportError):
            if answer := ask():
                return answer
        waiting.wait(pause)
    raise AssertionError(f"gave up waiting for {what}:\n{log()[-2000:]}")


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for its end."""
    return subprocess.run([*map(str, command)], capture_output=True, text=True, **options)


def output_of(*command: object, **options: Any) -> str:
    """Run a command that must succeed and return its output."""
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked_files(*patterns: str) -> list[str]:
    """The names of the repository's files, without those that are deleted in the working tree."""
    names = output_of("git", "ls-files", *patterns, cwd=ROOT).splitlines()
    return [name for name in names if (ROOT / name).is_file()]


def start(log: Path, environ: Mapping[str, str], *command: object, cwd: Path | None = None) -> Any:
    """Start a program of this environment in its own process group; its output is appended to a log file."""
    words = [str(BIN / str(command[0])), *map(str, command[1:])]
    with log.open("ab") as out:
        return subprocess.Popen(
            words, cwd=cwd, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def _name(pid: str) -> str:
    tracks = "resource_tracker" in Path(f"/proc/{pid}/cmdline").read_text()
    return "resource_tracker" if tracks else Path(f"/proc/{pid}/comm").read_text().strip()


def stop(process: subprocess.Popen[Any]) -> int:
    """Stop a program with SIGTERM, kill its process group in any case, and return its exit code."""
    process.terminate()
    try:
        return process.wait(PATIENCE_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def program(log: Path, environ: Mapping[str, str], *command: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs during the body of a `with`; see `start`."""
    process = start(log, environ, *command)
    try:
        yield process
    finally:
        stop(process)


class Served:
    """One `sentryagent-idp serve` on a free port; `environ` has its settings."""

    def __init__(
        self, log: Path, environ: Mapping[str, str], *flags: object, cwd: Path | None = None
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log, self.environ, self._flags, self._cwd = log, environ, flags, cwd
        self.process: Any = None

    def start(self) -> None:
        words = ("sentryagent-idp", "serve", "--port", self.port, *self._flags)
        self.process = start(self.log, self.environ, *words, cwd=self._cwd)

    def wait_until_ready(self) -> None:
        with self.client() as client:
            wait_until(
                lambda: client.get("/ready").is_success,
                "sentryagent-idp",
                process=self.process,
                log=self.log.read_text,
            )

    def stop(self) -> int:
        return stop(self.process)

    def workers(self) -> list[int]:
        """The process ids of the workers, oldest first."""
        return [pid for pid, name in self._children() if name not in {BACKGROUND, "resource_tracker"}]

    def background(self) -> int | None:
        """The process id of the background process, once it runs under its name."""
        return next((pid for pid, name in self._children() if name == BACKGROUND), None)

    def _children(self) -> Iterator[tuple[int, str]]:
        """The ids and names of its live child processes, started by any thread."""
        for children in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for pid in children.read_text().split():
                with contextlib.suppress(OSError):
                    yield int(pid), _name(pid)

    def is_busy(self) -> bool:
        """Whether requests have arrived: all connections are accepted and their bytes read."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        established = [row for row in rows if row[1].endswith(f":{self.port:04X}") and row[3] == "01"]
        return bool(established) and all(row[4].endswith(":00000000") for row in established)

    def is_closed(self) -> bool:
        """Whether the port no longer accepts connections."""
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client(self, path: str = "", **options: Any) -> httpx.Client:
        """A client of this provider; it loads no certificates, which takes longer than a request and is useless without TLS."""
        return httpx.Client(
            base_url=self.url + path, trust_env=False, verify=False, timeout=PATIENCE_SECONDS, **options
        )

    def command(self, *words: object, **settings: object) -> str:
        """Run a `sentryagent-idp` command on the provider's machine and return its output."""
        changed = {f"SENTRYAGENT_{name}": str(value) for name, value in settings.items()}
        environ = {**self.environ, **changed}
        return output_of(BIN / "sentryagent-idp", *words, env=environ, cwd=self._cwd).strip()

    @cached_property
    def admin(self) -> dict[str, str]:
        """The header of an admin with all scopes."""
        return {"Authorization": f"Bearer {self.command('admin-token')}"}
