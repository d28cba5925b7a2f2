"""A separate provider for each test, with its database and number of workers, that trusts a mock in this process."""

import contextlib
import re
from dataclasses import dataclass

import httpx
import pytest

from mock_idp.server import MockIdp

REPOSITORY = "octo-org/hello-agent"
CLIENTS = 100


@dataclass(frozen=True)
class Server:
    """A running provider that allows pushes of octo-org/hello-agent to register agents."""

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
        found = self.http.get("/api/v1/audit", params=query, headers=self.admin)
        return found.raise_for_status().json()["data"]

    def issuer_keys(self):
        """The state of GitHub's keys in a 200 response of /ready."""
        return self.http.get("/ready").raise_for_status().json()["issuerKeys"]


@pytest.fixture
def service_logs(tmp_path):
    """The log of this test's provider, which is searched for tokens like the shared provider's."""
    log = tmp_path / "sentryagent-idp.log"
    log.touch()
    return (log,)


@pytest.fixture
def serve(mock_idp, service_logs, tmp_path, provider_program):
    """Start a provider: `serve(workers=1, database_url=…)`; it is stopped when the test ends."""
    with contextlib.ExitStack() as running:

        def start(*, workers=1, database_url=f"sqlite:///{tmp_path / 'provider.db'}"):
            settings = {"DATABASE_URL": database_url, "RATE_LIMIT": "0"}
            served = running.enter_context(
                provider_program(service_logs[0], mock_idp.issuer, workers, **settings)
            )
            limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
            http = running.enter_context(served.client(limits=limits))
            policy = {"repository": REPOSITORY, "branch": "main"}
            http.post("/api/v1/oidc/trust-policies", json=policy, headers=served.admin).raise_for_status()
            return Server(served.url, mock_idp, http, served.admin)

        yield start


@pytest.fixture
def errors_in(service_logs):
    """A function that returns the provider's log lines of level error and above, and its tracebacks."""
    return lambda: re.findall(r".*(?:\[error|\[critical|Traceback|panicked).*", service_logs[0].read_text())
