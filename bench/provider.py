"""The provider of this repository: SQLite or PostgreSQL, one worker or more, a new or a grown database."""

import json
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx

from bench.disturbance import Disturbance, issuer_down, repeated
from bench.growth import Growth
from bench.load import LoadFailed, Target
from bench.postgresql import Cluster
from bench.processes import await_ready, environment, free_port, run, running
from bench.subject import Entrant, Running, Subject, Surroundings, post
from bench.workload import AUDIENCE, REPOSITORIES, TokenKind
from mock_idp.server import MockIdp
from sentryagent_idp.app import utc_now
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.ports import Store
from sentryagent_idp.runtime.ids import uuid7
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.housekeeping import Housekeeping
from sentryagent_idp.use_cases.signing_keys import KeyAdmin

_PROGRAM = str(Path(sys.executable).with_name("sentryagent-idp"))
_EXCHANGE = "/api/v1/oidc/token"
_KEEPS = "used `jti`, audit record"
_EXPIRED = 500
"""Used tokens at a time: about as many as are added in half a second at half load."""
_AT_ONCE = 20
"""Rows in one transaction: about as many as a group commit of exchanges has."""


def on_sqlite(workers: int, growth: Growth | None = None) -> Entrant:
    """Return the provider with its embedded database: new or grown."""
    name = f"provider, SQLite, {_workers(workers)}{f', {growth}' if growth else ''}"
    return Entrant(name, _KEEPS, partial(_sqlite, workers, growth), is_ours=True, growth=growth)


def on_postgresql(cluster: Cluster, workers: int) -> Entrant:
    """Return the provider with a database of the cluster."""
    name = f"provider, PostgreSQL, {_workers(workers)}"
    return Entrant(name, _KEEPS, partial(_postgresql, cluster, workers), is_ours=True)


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


@dataclass(frozen=True, slots=True)
class _Database:
    """The provider's database, and what the benchmark reads from it directly."""

    url: str
    size: Callable[[], int]
    roots: Sequence[int] = ()
    name: str = ""


@contextmanager
def _sqlite(workers: int, growth: Growth | None, around: Surroundings) -> Running:
    path = around.folder / f"provider-{workers}-{growth.rows if growth else 0}.db"
    database = _Database(
        f"sqlite:///{path}", partial(_sqlite_bytes, path), name=f"SQLite {sqlite3.sqlite_version}"
    )
    with _provider(database, workers, around) as subject:
        if growth:
            growth.fill(path)
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
        SENTRYAGENT_RATE_LIMIT="0",  # ten repositories and one address send the requests of a thousand
        SENTRYAGENT_WORKERS=str(workers),
    )
    log = around.folder / f"provider-{port}.log"
    with (
        running([_PROGRAM, "serve"], log, settings) as process,
        _api(port) as api,
        Database(database.url) as store,
    ):
        _await(api, process, log)
        api.headers["Authorization"] = f"Bearer {run([_PROGRAM, 'admin-token'], environ=settings).strip()}"
        admin = _Admin(api)
        agent_id = admin.prepare()
        yield Subject(
            target=Target(port, "access_token", "/health"),
            kind=TokenKind.GITHUB,
            request=lambda token: _request(port, token, agent_id),
            roots=[process.pid, *database.roots],
            version=f"{version('sentryagent-idp')}, {database.name}",
            issued=admin.issued,
            size=database.size,
            check=admin.check,
            disturbances=[
                issuer_down(around.github, partial(_present_unknown_key, api, around.github, agent_id)),
                _rotation(store),
                _expiry(store),
            ],
        )


def _request(port: int, token: str, agent_id: str) -> bytes:
    return post(port, _EXCHANGE, json.dumps({"token": token, "agentId": agent_id}))


def _present_unknown_key(api: httpx.Client, github: MockIdp, agent_id: str) -> None:
    """Send a token with an unknown key id, so that the provider asks its issuer for new keys.

    Each request has a connection of its own, since a connection stays with one worker.
    """
    token = github.mint(audience=AUDIENCE, header={"kid": "unknown"})
    body = {"token": token, "agentId": agent_id}
    answer = api.post(_EXCHANGE, json=body, headers={"Connection": "close"})
    if answer.status_code != httpx.codes.UNAUTHORIZED:
        raise LoadFailed(f"a token with an unknown key got {answer.status_code} {answer.text}")


def _rotation(store: Store) -> Disturbance:
    """Return a disturbance that rotates the signing keys, in this process.

    `sentryagent-idp keys rotate` would measure the start of a program, which takes a core for most of a second.
    """
    admin = KeyAdmin(store, Auditor(utc_now, uuid7), utc_now, passphrases=())
    return repeated(
        "signing keys rotate",
        partial(admin.rotate, "bench", RequestContext(request_id="bench", address=None)),
    )


def _expiry(store: Store) -> Disturbance:
    """Return a disturbance that inserts expired used tokens, and deletes them as a worker does."""
    keeper = Housekeeping(store, utc_now, audit_retention_days=None)

    def act() -> None:
        past = utc_now() - timedelta(days=1)
        for _ in range(_EXPIRED // _AT_ONCE):
            with store.write() as tx:
                tx.used_tokens.claim_all([UsedToken("bench", str(uuid7()), past) for _ in range(_AT_ONCE)])
        keeper.run()

    return repeated(f"{_EXPIRED} used tokens expire", act)


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
class _Admin:
    """The view of an admin through the API."""

    api: httpx.Client
    _path: str = field(default="/api/v1", init=False)

    def prepare(self) -> str:
        """Register an agent with a trust policy for each of the ten repositories; return the agent's id."""
        agent = self._post("/agents", {"email": "agent@octo-org.example", "owner": "octo-org"})
        for repository in REPOSITORIES:
            policy = {"repository": repository, "branch": "main", "agentId": agent["agentId"]}
            self._post("/oidc/trust-policies", policy)
        return str(agent["agentId"])

    def issued(self) -> int:
        """Return the number of audit records of tokens issued by exchange."""
        return int(
            self._get("/audit", action="token.issued", outcome="success", limit="1", count="true")["total"]
        )

    def check(self) -> str:
        """Return the problem of the audit chain, or an empty string."""
        report = self._get("/audit/verify")
        return "" if report["valid"] and not report["missing"] else f"the audit's chain is broken: {report}"

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.api.post(self._path + path, json=body).raise_for_status().json()
        return answer

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.api.get(self._path + path, params=query).raise_for_status().json()
        return answer


def _sqlite_bytes(path: Path) -> int:
    """Return the database's size, including what is still in its write-ahead log."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        pages, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        return int(pages) * int(size)
