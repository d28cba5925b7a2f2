"""Two replicas behind nginx, configured as in deploy/nginx: a rolling restart under load loses no request."""

import contextlib
import functools
import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from kit import ops
from kit.http import listening
from kit.processes import ROOT, clean_environment, free_port, start, stop, wait_until

pytestmark = [pytest.mark.ops, pytest.mark.xdist_group("faults")]

SITE = ROOT / "deploy" / "nginx" / "sentryagent-idp.conf"
STEADY = {"clients": 4, "pause": 0.02}
BETWEEN = 40
"""The number of exchanges between two restarts."""
EXCHANGE = "/api/v1/oidc/token"
PATHS = {
    "/api/v1/agents": 401,
    "/.well-known/jwks.json": 200,
    "/.well-known/oauth-authorization-server": 200,
    "/metrics": 404,
    "/docs": 404,
    "/openapi.json": 404,
    "/health": 404,
    "/ready": 404,
    "/": 404,
    "/api/v1x/agents": 404,
    "/api/v1/../../metrics": 404,
}
"""The status of each path without credentials."""


@dataclass(frozen=True)
class Nginx:
    """nginx in front of two replicas; `log` is its access log."""

    url: str
    tls: ssl.SSLContext
    log: Path

    @property
    def connect(self):
        return functools.partial(http.client.HTTPSConnection, context=self.tls)

    def ask(self, method, path, body=None, **headers):
        """Send a request with these header fields and return the status and body of its response."""
        fields = {name.replace("__", "-"): value for name, value in headers.items()}
        with contextlib.closing(self.connect(self.url.removeprefix("https://"))) as connection:
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture
def behind_nginx(tmp_path):
    """Start nginx in front of two replicas, given their ports."""
    with contextlib.ExitStack() as running:

        def put(*replicas):
            port, authority = free_port(), trustme.CA()
            folder = tmp_path / f"nginx-{port}"
            files = {
                "/etc/ssl/certs/idp.example.com.pem": folder / "certificate.pem",
                "/etc/ssl/private/idp.example.com.key": folder / "certificate.pem",
                "/var/log/nginx/sentryagent-idp.log": folder / "access.log",
            }
            addresses = {f"10.0.0.{11 + n}:3000": f"127.0.0.1:{it}" for n, it in enumerate(replicas)}
            places = files | addresses | {"443 ssl": f"127.0.0.1:{port} ssl"}
            command = ops.nginx(folder, ops.placed(SITE.read_text(), places))
            certificate = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
            certificate.write_to_path(folder / "certificate.pem")
            log = folder / "nginx.log"
            process = start(log, clean_environment(), *command)
            running.callback(stop, process)
            tls = ssl.create_default_context()
            authority.configure_trust(tls)
            nginx = Nginx(f"https://127.0.0.1:{port}", tls, folder / "access.log")
            wait_until(lambda: nginx.ask("GET", "/"), "nginx", process=process, log=log.read_text)
            return nginx

        yield put


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def two(request, provide, tmp_path):
    """Two replicas with two workers each."""
    if request.param == "sqlite":
        return provide(f"sqlite:///{tmp_path}/provider.db", replicas=2)
    return provide(request.getfixturevalue("postgres_url"), replicas=2)


def test_a_rolling_restart_loses_no_request(two, behind_nginx, request):
    """Each replica in turn is stopped, started and awaited, twice: every client gets only 200."""
    nginx = behind_nginx(*(it.port for it in two.replicas))
    with two.load(nginx.url, connect=nginx.connect, **STEADY) as load:
        load.run(BETWEEN)
        for replica in two.replicas * 2:
            assert replica.stop() == 0
            load.run(BETWEEN)
            replica.start()
            replica.wait_until_ready()
            load.run(BETWEEN)

    assert load.outcomes().keys() == {(200, None)}, load.outcomes()
    two.assert_sound(load, request.node.name)


def test_what_nginx_lets_through(provide, tmp_path, behind_nginx):
    """Only public paths and the client's real address pass nginx, and the provider itself refuses a body that is too large."""
    provider = provide(f"sqlite:///{tmp_path}/provider.db", TRUSTED_PROXIES="127.0.0.1")
    nginx = behind_nginx(provider.replicas[0].port, provider.replicas[0].port)

    assert {path: nginx.ask("GET", path)[0] for path in PATHS} == PATHS
    status, answer = nginx.ask("POST", EXCHANGE, b"x" * 100_000, Content__Type="application/json")
    assert (status, json.loads(answer)["code"]) == (413, "PAYLOAD_TOO_LARGE")
    forged = {"X__Forwarded__For": "203.0.113.9", "X_Forwarded_For": "203.0.113.9"}
    body = json.dumps({"token": provider.github.mint(audience=provider.issuer)})
    assert nginx.ask("POST", EXCHANGE, body, Content__Type="application/json", **forged)[0] == 200
    ((request_id, address),) = provider.rows(
        "SELECT request_id, address FROM audit_log WHERE action = 'token.issued' AND actor LIKE 'repo:%'"
    )
    assert address == "127.0.0.1"
    wait_until(lambda: request_id in nginx.log.read_text(), "its line, which nginx writes after the response")


def test_no_exchange_is_sent_twice(behind_nginx):
    """If a replica refuses connections, nginx tries the other; once a replica has received a request, it never retries."""
    taken = []

    def take_and_go(connection):
        taken.append(connection.recv(65536))

    with listening(take_and_go) as one, listening(take_and_go) as other:
        both, alone = behind_nginx(one, other), behind_nginx(free_port(), one)
        statuses = [nginx.ask("POST", EXCHANGE, b"{}")[0] for nginx in (both, alone) for _ in range(4)]

    assert statuses == [502] * 8
    assert len(taken) == 8
