"""The provider of this repository: SQLite or PostgreSQL, one worker or two."""

import json
import platform
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx

from bench.load import Target
from bench.postgresql import Cluster
from bench.processes import await_ready, environment, free_port, run, running
from bench.subject import Entrant, Running, Subject, Surroundings, post
from bench.workload import AUDIENCE, REPOSITORIES, TokenKind

_PROGRAM = str(Path(sys.executable).with_name("sentryagent-idp"))
_EXCHANGE = "/api/v1/oidc/token"
_KEEPS = "used `jti`, audit record"
MANY_POLICIES = 100_000


def on_sqlite(workers: int, policies: int = len(REPOSITORIES)) -> Entrant:
    """The provider with its embedded database."""
    name = f"provider, SQLite, {_workers(workers)}"
    more = "" if policies == len(REPOSITORIES) else f", {policies:,} policies"
    return Entrant(name + more, _KEEPS, partial(_sqlite, workers, policies), is_ours=True)


def on_postgresql(cluster: Cluster, workers: int) -> Entrant:
    """The provider with a database of the cluster."""
    name = f"provider, PostgreSQL, {_workers(workers)}"
    return Entrant(name, _KEEPS, partial(_postgresql, cluster, workers), is_ours=True)


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


@dataclass(frozen=True, slots=True)
class _Database:
    """Where the provider keeps its state, and what of it is read past the provider."""

    url: str
    size: Callable[[], int]
    roots: Sequence[int] = ()
    name: str = ""


@contextmanager
def _sqlite(workers: int, policies: int, around: Surroundings) -> Running:
    path = around.folder / f"provider-{workers}-{policies}.db"
    database = _Database(
        f"sqlite:///{path}", partial(_sqlite_bytes, path), name=f"SQLite {sqlite3.sqlite_version}"
    )
    with _provider(database, workers, around) as subject:
        _multiply_policies(path, policies - len(REPOSITORIES))
        yield subject


@contextmanager
def _postgresql(cluster: Cluster, workers: int, around: Surroundings) -> Running:
    name = f"provider_{workers}"
    url = cluster.create(name)
    database = _Database(url, partial(cluster.size, name), [cluster.root], f"PostgreSQL {cluster.version}")
    with _provider(database, workers, around) as subject:
        yield subject


@contextmanager
def _provider(database: _Database, workers: int, around: Surroundings) -> Running:
    port = free_port()
    settings = environment(
        SENTRYAGENT_DATABASE_URL=database.url,
        SENTRYAGENT_GITHUB_ISSUER=around.issuer,
        SENTRYAGENT_OIDC_AUDIENCE=AUDIENCE,
        SENTRYAGENT_PORT=str(port),
        SENTRYAGENT_RATE_LIMIT="0",  # ten repositories and one address ask as a thousand would
        SENTRYAGENT_WORKERS=str(workers),
    )
    log = around.folder / f"provider-{port}.log"
    with running([_PROGRAM, "serve"], log, settings) as process, _api(port) as api:
        _await(api, process, log)
        api.headers["Authorization"] = f"Bearer {run([_PROGRAM, 'admin-token'], environ=settings).strip()}"
        books = _Books(api)
        agent_id = books.prepare()
        yield Subject(
            target=Target(port, "access_token", "/health"),
            kind=TokenKind.GITHUB,
            request=lambda token: _request(port, token, agent_id),
            roots=[process.pid, *database.roots],
            version=f"{version('sentryagent-toolkit')}, Python {platform.python_version()}, {database.name}",
            issued=books.issued,
            size=database.size,
            check=books.check,
        )


def _request(port: int, token: str, agent_id: str) -> bytes:
    return post(port, _EXCHANGE, json.dumps({"token": token, "agentId": agent_id}))


def _api(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)


def _await(api: httpx.Client, process: Popen[bytes], log: Path) -> None:
    def is_ready() -> bool:
        try:
            return api.get("/ready").is_success
        except httpx.TransportError:
            return False

    await_ready(is_ready, process, log)


@dataclass(frozen=True, slots=True)
class _Books:
    """What an admin sees through the API."""

    api: httpx.Client
    _path: str = field(default="/api/v1", init=False)

    def prepare(self) -> str:
        """An agent, and a trust policy for each of the ten repositories; the agent's id."""
        agent = self._post("/agents", {"email": "agent@octo-org.example", "owner": "octo-org"})
        for repository in REPOSITORIES:
            policy = {"repository": repository, "branch": "main", "agentId": agent["agentId"]}
            self._post("/oidc/trust-policies", policy)
        return str(agent["agentId"])

    def issued(self) -> int:
        """The records of tokens that were handed out by exchange."""
        return int(self._get("/audit", action="token.issued", outcome="success", limit="1")["total"])

    def check(self) -> str:
        """What is wrong with the chain of the audit; empty where nothing is."""
        report = self._get("/audit/verify")
        return "" if report["valid"] and not report["missing"] else f"the audit's chain is broken: {report}"

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.api.post(self._path + path, json=body).raise_for_status().json()
        return answer

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.api.get(self._path + path, params=query).raise_for_status().json()
        return answer


def _sqlite_bytes(path: Path) -> int:
    """The database's size, with what its log has not yet handed over."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        pages, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        return int(pages) * int(size)


def _multiply_policies(path: Path, count: int) -> None:
    """Copy a policy, for so many other repositories: through the API it would take minutes."""
    others = {
        "id": "printf('00000000-0000-4000-8000-%012x', number)",
        "repository": "'octo-org/other-' || number",
        "repository_key": "'octo-org/other-' || number",
        "conditions_key": "lower(hex(randomblob(32)))",
    }
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(oidc_trust_policies)")]
        connection.execute(
            f"WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?) "  # noqa: S608 - names of our own table
            f"INSERT INTO oidc_trust_policies ({', '.join(columns)}) "
            f"SELECT {', '.join(others.get(name, name) for name in columns)} "
            "FROM (SELECT * FROM oidc_trust_policies LIMIT 1), numbers WHERE number <= ?",
            (count, count),
        )
