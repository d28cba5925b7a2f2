"""The services of examples/verify: starting them on free ports, and sending them requests with a token."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from werkzeug.datastructures import WWWAuthenticate

from kit import ops
from kit.http import serving
from kit.node import EXAMPLES, beside_jose
from kit.processes import clean_environment, free_port, start, stop, wait_until

READ, DEPLOY = "deploy:read", "deploy:production"
TOOLS = {READ: "list_deployments", DEPLOY: "deploy"}
METHODS = {READ: "GET", DEPLOY: "POST"}

ClientOf = Callable[[str], tuple[str, str]]
"""A function that returns the id and secret of a service's client."""


@dataclass(frozen=True)
class Answer:
    """A service's response: HTTP status, challenges (RFC 6750, section 3) and text."""

    status: int
    challenges: tuple[WWWAuthenticate, ...]
    text: str

    @property
    def error(self) -> str | None:
        """The error of the only challenge."""
        (challenge,) = self.challenges
        assert challenge.type == "bearer"
        return challenge.parameters.get("error")


@dataclass(frozen=True)
class Service:
    """A running service; `audience` is its identifier."""

    name: str
    url: str
    audience: str
    log: Path

    def ask(self, token: str | None, scope: str, **headers: str) -> Answer:
        """Send the request that requires a scope, with a bearer token or, without one, only these headers."""
        sent = {"Authorization": f"Bearer {token}"} if token is not None else {}
        answer = self._send(scope, sent | headers)
        challenges = [WWWAuthenticate.from_header(it) for it in answer.headers.get_list("WWW-Authenticate")]
        return Answer(answer.status_code, tuple(challenges), answer.text)

    def _send(self, scope: str, headers: Mapping[str, str]) -> httpx.Response:
        with httpx.Client(trust_env=False, verify=False, timeout=30) as client:
            if self.name == "mcp":
                return client.post(self.url, headers=_MCP | headers, json=call_of(TOOLS[scope]))
            return client.request(METHODS[scope], f"{self.url}/deployments", headers=headers)


_MCP = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}


def call_of(tool: Any) -> dict[str, Any]:
    """The JSON-RPC message that calls a tool of an MCP server."""
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}


@contextmanager
def serving_example(name: str, issuer: str, client_of: ClientOf, folder: Path) -> Iterator[Service]:
    """One of the services, which trusts `issuer`; `client_of` is for the service that introspects."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    if name == "mcp":
        url += "/mcp"
    service = Service(
        name, url, url if name == "mcp" else f"https://{name}.example.com", folder / f"{name}.log"
    )
    environ = clean_environment() | {
        "TOKEN_ISSUER": issuer,
        "TOKEN_AUDIENCE": service.audience,
        "PORT": str(port),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with ExitStack() as stack:
        if name == "nginx":
            command = stack.enter_context(_behind_nginx(service, environ, port, client_of, folder))
        else:
            command = _COMMANDS[name](port, folder)
        stack.enter_context(_running(service.log, environ, *command))
        wait_until(lambda: httpx.get(url, trust_env=False), name, log=service.log.read_text)
        yield service


_COMMANDS = {
    "flask": lambda port, _: ("flask", "--app", "flask_service", "run", "--port", port),
    "fastapi": lambda port, _: ("uvicorn", "fastapi_service:app", "--port", port),
    "node": lambda _, folder: (
        shutil.which("node"),
        beside_jose(EXAMPLES / "node_service.mjs", _new(folder / "node")),
    ),
    "mcp": lambda _port, _folder: ("python", "mcp_server.py"),
}


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@contextmanager
def _running(log: Path, environ: Mapping[str, str], *command: object) -> Iterator[None]:
    process = start(log, environ, *command, cwd=EXAMPLES)
    try:
        yield
    finally:
        stop(process)


@contextmanager
def _behind_nginx(
    service: Service, environ: Mapping[str, str], port: int, client_of: ClientOf, folder: Path
) -> Iterator[tuple[object, ...]]:
    """Run introspect.py and a backend that echoes its request behind nginx, and yield nginx's command."""
    introspect = free_port()
    credentials = dict(zip(("CLIENT_ID", "CLIENT_SECRET"), client_of(service.audience), strict=True))
    command = ("flask", "--app", "introspect", "run", "--port", introspect)
    with (
        serving(_what_arrived) as backend,
        _running(service.log, {**environ, **credentials}, *command),
    ):
        wait_until(
            lambda: httpx.get(f"http://127.0.0.1:{introspect}", trust_env=False),
            "introspect.py",
            log=service.log.read_text,
        )
        places = {":8080": f":{port}", ":5000/": f":{introspect}/", ":9000": f":{httpx.URL(backend).port}"}
        yield ops.nginx(folder, ops.placed((EXAMPLES / "nginx.conf").read_text(), places))


def _what_arrived(path: str, headers: Any, body: bytes) -> tuple[int, Any]:
    return 200, {
        "path": path,
        "agent": headers.get_all("X-Agent"),
        "authorization": headers.get("Authorization"),
    }
