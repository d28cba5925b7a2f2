"""A provider of the test's own: with the database and the number of workers that it wants, trusting a mock in this process."""

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import httpx
import pytest

from mock_idp.server import MockIdp

REPOSITORY = "octo-org/hello-agent"
PATIENCE_SECONDS = 30
CLIENTS = 100


@dataclass(frozen=True)
class Server:
    """A running provider that lets pushes of octo-org/hello-agent register agents."""

    url: str
    idp: MockIdp
    http: httpx.Client
    admin: dict[str, str]

    def token(self, **changes):
        """A GitHub token for this provider; see `MockIdp.mint`."""
        return self.idp.mint(audience=self.url, **changes)

    def exchange(self, token=None):
        return self.http.post("/api/v1/oidc/token", json={"token": token or self.token()})

    def audit(self, action):
        query = {"action": action, "limit": 100}
        return (
            self.http.get("/api/v1/audit", params=query, headers=self.admin).raise_for_status().json()["data"]
        )

    def issuer_keys(self):
        """The state of GitHub's keys, as /ready shows it with its 200."""
        return self.http.get("/ready").raise_for_status().json()["issuerKeys"]


@pytest.fixture(scope="session")
def ring():
    """The mock's keys, made once."""
    with MockIdp() as idp:
        return idp.state.ring


@pytest.fixture
def idp(ring):
    """GitHub, in this process, where tests can break it and count what it is asked."""
    with MockIdp(ring=ring) as running:
        yield running


@pytest.fixture
def service_logs(tmp_path):
    """The log of this test's own provider: it is swept for tokens as those of the shared one are."""
    log = tmp_path / "sentryagent-idp.log"
    log.touch()
    return (log,)


@pytest.fixture
def serve(idp, service_logs, tmp_path, provider_program):
    """Start a provider: `serve(workers=1, database_url=…)`; it is stopped when the test ends."""
    with contextlib.ExitStack() as running:

        def start(*, workers=1, database_url=f"sqlite:///{tmp_path / 'provider.db'}"):
            settings = {"SENTRYAGENT_DATABASE_URL": database_url, "SENTRYAGENT_RATE_LIMIT": "0"}
            program = provider_program(service_logs[0], settings, idp.issuer, workers)
            url, admin_token = running.enter_context(program)
            limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
            client = httpx.Client(base_url=url, limits=limits, timeout=PATIENCE_SECONDS, trust_env=False)
            http = running.enter_context(client)
            admin = {"Authorization": f"Bearer {admin_token}"}
            policy = {"repository": REPOSITORY, "branch": "main"}
            http.post("/api/v1/oidc/trust-policies", json=policy, headers=admin).raise_for_status()
            return Server(url, idp, http, admin)

        yield start


@pytest.fixture
def at_once():
    """Call a function with each of up to a hundred arguments, all at the same moment; gives what they return, in order."""

    def run(function, arguments):
        barrier = Barrier(len(arguments))

        def started(argument):
            barrier.wait(PATIENCE_SECONDS)
            return function(argument)

        with ThreadPoolExecutor(len(arguments)) as pool:
            return list(pool.map(started, arguments))

    return run


@pytest.fixture
def errors_in(service_logs):
    """The provider's log lines of level error and above, and its tracebacks."""
    return lambda: re.findall(r".*(?:\[error|\[critical|Traceback|panicked).*", service_logs[0].read_text())
