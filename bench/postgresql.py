"""A temporary PostgreSQL server on a free port of 127.0.0.1, with its default durability."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.processes import Unavailable, free_port, run

_ROOT_USER = "postgres"
"""PostgreSQL refuses to run as root; its packages create this user."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server; `root` is the process id of the postmaster."""

    port: int
    root: int
    version: str

    def create(self, database: str) -> str:
        """Create a database and return its URL for SQLAlchemy."""
        self._ask(f"CREATE DATABASE {database}")
        return f"postgresql+psycopg://{_ROOT_USER}@127.0.0.1:{self.port}/{database}"

    def size(self, database: str) -> int:
        """Return the size of a database with its indexes in bytes."""
        row = self._ask(f"SELECT pg_database_size('{database}')")
        return int(row)

    def _ask(self, statement: str) -> str:
        url = f"postgresql://{_ROOT_USER}@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return str((cursor.fetchone() or ("",))[0]) if cursor.description else ""


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a server for the block, and remove it afterwards; raises `Unavailable`."""
    programs = _programs()
    # In a folder of its own: as root, the benchmark's folder is closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="bench-postgresql-"))
    try:
        as_user = _hand_over(folder)
        data = str(folder / "data")
        create = [*as_user, str(programs / "initdb"), "-D", data, "--auth=trust", f"--username={_ROOT_USER}"]
        run([*create, "--encoding=UTF8", "--locale=C.UTF-8"], cwd=folder)
        with _started([*as_user, str(programs / "pg_ctl"), "-D", data], folder) as port:
            postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
            version = run([str(programs / "postgres"), "--version"]).split()[2]
            yield Cluster(port, postmaster, version)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _started(control: Sequence[str], folder: Path) -> Iterator[int]:
    port = free_port()
    options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run([*control, "start", "--wait", f"--log={folder / 'log'}", f"--options={options}"], cwd=folder)
    try:
        yield port
    finally:
        run([*control, "stop", "--wait", "--mode=immediate"], cwd=folder)


def _programs() -> Path:
    """Return the folder with the newest version of PostgreSQL's server programs."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if folders:
        return max(folders, key=lambda it: float(it.parent.name))
    if on_path:
        return Path(on_path).resolve().parent
    raise Unavailable("PostgreSQL's initdb is not in /usr/lib/postgresql or on PATH")


def _hand_over(folder: Path) -> list[str]:
    """Give the folder to the user that PostgreSQL runs as; return the prefix that runs a command as that user."""
    if os.geteuid() != 0:
        return []
    if shutil.which("runuser") is None:
        raise Unavailable("PostgreSQL cannot run as root, and runuser is not installed")
    shutil.chown(folder, _ROOT_USER, _ROOT_USER)
    return ["runuser", "-u", _ROOT_USER, "--"]
