"""npm's oidc-provider in memory: a widely used, certified library, which verifies a client's signed assertion."""

import json
import re
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from bench.load import Target
from bench.processes import Unavailable, await_ready, environment, run, running
from bench.subject import Entrant, Running, Subject, Surroundings, post
from bench.workload import AUDIENCE, CLIENT_ID, TokenKind

_VERSION = "9.13.3"
_SCRIPT = Path(__file__).with_suffix(".mjs")
_FORM = {
    "grant_type": "client_credentials",
    "scope": "agents:read",
    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
}


def entrants() -> list[Entrant]:
    """Return one server for each algorithm with which it signs its tokens."""
    return [
        Entrant(f"oidc-provider, {algorithm}", "nothing", partial(_oidc_provider, algorithm))
        for algorithm in ("RS256", "ES256")
    ]


@contextmanager
def _oidc_provider(algorithm: str, around: Surroundings) -> Running:
    node, script = _install(around.folder / "oidc-provider")
    log = around.folder / f"oidc-provider-{algorithm}.log"
    settings = {"algorithm": algorithm, "clientId": CLIENT_ID, "issuer": AUDIENCE, "jwk": around.issuer_jwk}
    with running(
        [node, str(script), json.dumps(settings)], log, environment(NODE_ENV="production")
    ) as process:
        await_ready(lambda: _port(log) > 0, process, log)
        yield Subject(
            target=Target(_port(log), "access_token", "/.well-known/openid-configuration"),
            kind=TokenKind.ASSERTION,
            request=partial(_request, _port(log)),
            roots=[process.pid],
            version=f"{_VERSION}, Node.js {run([node, '--version']).strip().removeprefix('v')}",
        )


def _request(port: int, assertion: str) -> bytes:
    body = urlencode(_FORM | {"client_assertion": assertion})
    return post(port, "/token", body, "application/x-www-form-urlencoded")


def _port(log: Path) -> int:
    said = re.search(r"^port (\d+)$", log.read_text(), re.MULTILINE)
    return int(said[1]) if said else 0


def _install(folder: Path) -> tuple[str, Path]:
    """Return the paths of node and of the server's script next to its library; raises `Unavailable`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Unavailable("node or npm is not on PATH")
    script = folder / _SCRIPT.name
    if not script.exists():
        folder.mkdir(exist_ok=True)
        options = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        run([npm, "install", *options, f"oidc-provider@{_VERSION}"], cwd=folder)
        shutil.copy(_SCRIPT, script)
    return node, script
