"""The optional test layers: skipped with a reason if this machine cannot run them, failed if they are required.

`SENTRYAGENT_TEST_REQUIRE=docker,postgres` turns the skips of these layers into failures.
`SENTRYAGENT_PROPERTY_EXAMPLES=1000` runs each property test on 1000 examples instead of 100.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

from kit import ops
from kit.processes import free_port

REQUIRE = "SENTRYAGENT_TEST_REQUIRE"
EXAMPLES = "SENTRYAGENT_PROPERTY_EXAMPLES"

settings.register_profile("sentryagent", max_examples=int(os.environ.get(EXAMPLES, "100")), deadline=None)
settings.load_profile("sentryagent")


def _docker() -> str | None:
    if shutil.which("docker") is None:
        return "no docker on PATH"
    try:
        engine = subprocess.run(["docker", "info"], capture_output=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    return None if engine.returncode == 0 else "no Docker engine runs"


def _postgres() -> str | None:
    if _postgres_programs() is None:
        return "no initdb of PostgreSQL in /usr/lib/postgresql or on PATH"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL must not run as root, and there is no runuser"
    return None


def _node() -> str | None:
    return None if shutil.which("node") else "no node on PATH"


def _browser() -> str | None:
    return None if Path("/usr/bin/chromium").exists() else "no /usr/bin/chromium"


def _ops() -> str | None:
    missing = [program for program in ops.PROGRAMS if ops.where(program) is None]
    return f"no {', '.join(missing)} on PATH or in /usr/sbin" if missing else None


LAYERS: dict[str, Callable[[], str | None]] = {
    "docker": _docker,
    "postgres": _postgres,
    "node": _node,
    "browser": _browser,
    "ops": _ops,
}
"""The check of each layer, which returns what this machine lacks, or `None`."""


@cache
def _lack(layer: str) -> str | None:
    return LAYERS[layer]()


@cache
def _required() -> frozenset[str]:
    return frozenset(filter(None, map(str.strip, os.environ.get(REQUIRE, "").split(","))))


def pytest_configure():
    unknown = sorted(_required() - LAYERS.keys())
    if unknown:
        raise pytest.UsageError(f"{REQUIRE} names {', '.join(unknown)}; the layers are {', '.join(LAYERS)}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Run all docker tests in one xdist worker: they share an engine, and would remove each other's images."""
    for item in items:
        if item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.xdist_group("docker"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    for layer in LAYERS:
        lack = _lack(layer) if item.get_closest_marker(layer) else None
        if lack and layer in _required():
            pytest.fail(f"{REQUIRE} asks for {layer}: {lack}", pytrace=False)
        if lack:
            pytest.skip(f"{layer}: {lack}")


def _postgres_programs() -> Path | None:
    """The folder of the newest PostgreSQL server programs."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    newest = sorted((it for it in folders if (it / "initdb").exists()), key=lambda it: float(it.parent.name))
    if newest:
        return newest[-1]
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class PostgresCluster:
    """A temporary PostgreSQL server on a free port of 127.0.0.1, without durability."""

    def __init__(self) -> None:
        # Not pytest's temporary folder: under root, the server's user cannot access it.
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        self._programs = _postgres_programs()
        self._prefix = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self._prefix = ["runuser", "-u", "postgres", "--"]
        self.port = free_port()
        self._run(
            "initdb",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )

    def start(self) -> None:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 200,
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run("pg_ctl", "start", "--wait", f"--log={self.folder / 'log'}", f"--options={options}")

    def stop(self) -> None:
        """Stop the server immediately, as in a crash."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL and wait until they are gone."""
        postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        processes = [postmaster, *map(int, children)]
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(_is_running(pid) for pid in processes):
            os.sched_yield()
        # If nothing reaps orphans, as in many containers, these files would make the dead server count as running.
        for lock in (self.folder / "data" / "postmaster.pid", *self.folder.glob(".s.PGSQL.*.lock")):
            lock.unlink()

    @contextmanager
    def database_in(self, folder: Path) -> Iterator[str]:
        """The URL of a new database whose tables are in `folder`; the write-ahead log stays in the cluster."""
        name = f"test_{uuid4().hex}"
        place = folder / name
        place.mkdir()
        if os.geteuid() == 0:
            shutil.chown(place, "postgres", "postgres")
        self.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
        self.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")
            self.execute(f"DROP TABLESPACE {name}")

    def remove(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the superuser, outside a transaction."""
        import psycopg

        with psycopg.connect(
            f"postgresql://postgres@127.0.0.1:{self.port}/{database}", autocommit=True
        ) as connection:
            connection.execute(statement)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._prefix, str(self._programs / program), "-D", str(self.folder / "data"), *arguments]
        # Not through pipes: the server would inherit them, and reading would wait until it ends.
        with (self.folder / f"{program}.out").open("w+") as out:
            finished = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, cwd="/", timeout=60)
            out.seek(0)
            assert finished.returncode == 0, f"{program} failed: {out.read()}"


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def postgres_cluster():
    """A PostgreSQL server for this test session; for tests marked `postgres`."""
    cluster = PostgresCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def postgres_url(postgres_cluster):
    """The URL of a new, empty PostgreSQL database."""
    name = f"test_{uuid4().hex}"
    postgres_cluster.execute(f"CREATE DATABASE {name}")
    yield postgres_cluster.url(name)
    postgres_cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")
