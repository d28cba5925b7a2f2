"""Programs in processes of their own on 127.0.0.1: started, waited for, stopped."""

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
"""What `ps` calls the provider's background process."""
PATIENCE_SECONDS = 60
"""After which a process that should have got somewhere is given up."""


def free_port() -> int:
    """A port of 127.0.0.1 at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def clean_environment(**settings: object) -> dict[str, str]:
    """This process' environment with these `SENTRYAGENT_` settings, and no others of a provider, a mock or a job."""
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
    """The first true answer of a process that nothing else tells about; a failed connection is no answer yet."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / pause)):
        if process and process.poll() is not None:
            break
        with contextlib.suppress(OSError, httpx.TransportError):
            if answer := ask():
                return answer
        waiting.wait(pause)
    raise AssertionError(f"{what} did not get there:\n{log()[-2000:]}")


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run([*map(str, command)], capture_output=True, text=True, **options)


def output_of(*command: object, **options: Any) -> str:
    """What a command that must succeed prints."""
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked_files(*patterns: str) -> list[str]:
    """The names of the repository's files, those that are deleted and not yet committed left out."""
    names = output_of("git", "ls-files", *patterns, cwd=ROOT).splitlines()
    return [name for name in names if (ROOT / name).is_file()]


def start(log: Path, environ: Mapping[str, str], *command: object, cwd: Path | None = None) -> Any:
    """Start a program of this environment in a process group of its own; it logs to the end of a file."""
    words = [str(BIN / str(command[0])), *map(str, command[1:])]
    with log.open("ab") as out:
        return subprocess.Popen(
            words, cwd=cwd, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def _name(pid: str) -> str:
    tracks = "resource_tracker" in Path(f"/proc/{pid}/cmdline").read_text()
    return "resource_tracker" if tracks else Path(f"/proc/{pid}/comm").read_text().strip()


def stop(process: subprocess.Popen[Any]) -> int:
    """End a program as an operator does, and its whole group whatever happens; gives its exit code."""
    process.terminate()
    try:
        return process.wait(PATIENCE_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def program(log: Path, environ: Mapping[str, str], *command: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs for the body of a `with`; see `start`."""
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
        """The process ids of the workers, the oldest first."""
        return [pid for pid, name in self._children() if name not in {BACKGROUND, "resource_tracker"}]

    def background(self) -> int | None:
        """The process id of the background process, if it is there and has its name."""
        return next((pid for pid, name in self._children() if name == BACKGROUND), None)

    def _children(self) -> Iterator[tuple[int, str]]:
        """Its live children, whichever thread started them, with their names."""
        for children in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for pid in children.read_text().split():
                with contextlib.suppress(OSError):
                    yield int(pid), _name(pid)

    def is_busy(self) -> bool:
        """Whether requests have arrived: there are connections, all accepted, and their bytes are read."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        established = [row for row in rows if row[1].endswith(f":{self.port:04X}") and row[3] == "01"]
        return bool(established) and all(row[4].endswith(":00000000") for row in established)

    def is_closed(self) -> bool:
        """Whether the port takes no connection any more."""
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client(self, path: str = "", **options: Any) -> httpx.Client:
        """A client of it; without TLS there is no use in loading certificates, which takes longer than an answer."""
        return httpx.Client(
            base_url=self.url + path, trust_env=False, verify=False, timeout=PATIENCE_SECONDS, **options
        )

    def command(self, *words: object, **settings: object) -> str:
        """Run `sentryagent-idp` as the admin at the machine; gives what it prints."""
        changed = {f"SENTRYAGENT_{name}": str(value) for name, value in settings.items()}
        environ = {**self.environ, **changed}
        return output_of(BIN / "sentryagent-idp", *words, env=environ, cwd=self._cwd).strip()

    @cached_property
    def admin(self) -> dict[str, str]:
        """The header of an admin who may do everything."""
        return {"Authorization": f"Bearer {self.command('admin-token')}"}
