"""The provider's application without sockets: a real SQLite file, GitHub's tokens from the mock, a clock to turn."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from shutil import copyfile
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from mock_idp.issuer import Issuer
from mock_idp.job import Job
from sentryagent_idp.app import World, create_app, token_service
from sentryagent_idp.config import Settings
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.scopes import ALL_SCOPES
from sentryagent_idp.errors import InvalidOidcToken, IssuerUnavailable
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.key_ring import KeyRing, ensure_signing_key
from sentryagent_idp.use_cases.rejections import RejectionAudit

PROVIDER = "https://idp.example.com"
GITHUB = "https://token.actions.githubusercontent.com"
POLICIES = "/api/v1/oidc/trust-policies"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def github_keys():
    """One pair of RSA keys for the session: making them is the slow part."""
    return Issuer(GITHUB).ring


@dataclass
class Clock:
    """A clock that stands until it is turned."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class GithubKeys:
    """The mock's published keys, handed over without HTTP; `reachable` can be switched off."""

    issuer: Issuer
    reachable: bool = True

    def find(self, kid: str) -> RSAPublicKey:
        if not self.reachable:
            raise IssuerUnavailable("The signing keys cannot be fetched; try again in 30 s.", retry_after=30)
        for key in self.issuer.ring.published:
            if key.kid == kid:
                return key.private.public_key()
        raise InvalidOidcToken("unknown_key", "The key is not published.")

    def status(self) -> dict[str, Any]:
        state, age = ("fresh", 1) if self.reachable else ("missing", None)
        return {"state": state, "ageSeconds": age, "lastError": None}


@dataclass
class Provider:
    """The application and its surroundings, with short ways to say what tests say often."""

    url: str
    github: Issuer
    clock: Clock
    keys: GithubKeys
    store: Database
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = Settings.from_environ(
            {"SENTRYAGENT_PUBLIC_URL": PROVIDER, "SENTRYAGENT_DATABASE_URL": self.url, **self.environ}
        )
        world = World(self.store, self.keys, lambda: not schema.is_prepared(self.url), self.clock)
        self.rejections = world.rejections
        self.metrics = world.metrics
        self.app = create_app(self.settings, world)
        self.exchange_use_case = self.app.extensions["sentryagent"].exchange
        self.http = self.app.test_client()
        self.admin = self.admin_headers()

    def with_settings(self, **variables: str) -> "Provider":
        """A second process on the same database, with `SENTRYAGENT_<NAME>` variables."""
        environ = {f"SENTRYAGENT_{name}": value for name, value in variables.items()}
        return Provider(self.url, self.github, self.clock, self.keys, self.store, environ)

    def admin_headers(self, *scopes: str) -> dict[str, str]:
        tokens = token_service(self.settings, self.store, KeyRing(self.settings.passphrases), self.clock)
        here = RequestContext("test", None)
        issued = tokens.issue_to_admin("admin-cli", scopes or ALL_SCOPES, 3600, here)
        return {"Authorization": f"Bearer {issued['access_token']}"}

    def github_token(self, fault: str = "", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token for a push to main of octo-org/hello-agent, made now; claims override, `None` removes."""
        self.github.clock.freeze(self.clock.now.timestamp())
        job = claims.pop("job", None) or Job()
        return self.github.mint(job, audience=PROVIDER, claims=claims, header=header, fault=fault)

    def exchange(self, token: str | None = None, **body: Any) -> Any:
        return self.http.post("/api/v1/oidc/token", json={"token": token or self.github_token(), **body})

    def policy(self, **members: Any) -> dict[str, Any]:
        """Create a policy, by default the bootstrap policy of octo-org/hello-agent."""
        body = {"repository": "octo-org/hello-agent", **members}
        answer = self.http.post(POLICIES, json=body, headers=self.admin)
        assert answer.status_code == 201, answer.text
        return answer.json

    def replace_policy(self, policy: dict[str, Any], **members: Any) -> dict[str, Any]:
        """PUT the policy as it was given, with these members changed."""
        body = {**policy, **members}
        answer = self.http.put(f"{POLICIES}/{policy['id']}", json=body, headers=self.admin)
        assert answer.status_code == 200, answer.text
        return answer.json

    def agent(
        self, email: str = "bot@octo-org.example", headers: dict[str, str] | None = None, **members: Any
    ) -> Any:
        answer = self.http.post(
            "/api/v1/agents", json={"email": email, **members}, headers=headers or self.admin
        )
        assert answer.status_code == 201, answer.text
        return answer.json

    def trusted_agent(self, **policy: Any) -> tuple[str, dict[str, Any]]:
        """A new agent's id, and a policy for it with these members."""
        agent_id = self.agent()["agentId"]
        return agent_id, self.policy(agentId=agent_id, **policy)

    def bootstrap_headers(self, **claims: Any) -> dict[str, str]:
        """A bootstrap token; its policy must exist."""
        return self._bearer(self.exchange(self.github_token(**claims)))

    def agent_headers(self, agent_id: str, **claims: Any) -> dict[str, str]:
        """An agent-scoped token; its policy must exist."""
        return self._bearer(self.exchange(self.github_token(**claims), agentId=agent_id))

    def end_minute(self) -> int:
        """Write the counts of refusals, as the background does once a minute; how many records that were."""
        auditor = Auditor(self.clock, uuid4)
        return RejectionAudit(self.store, auditor, self.rejections, uuid4).run()

    def audit(self, **filters: Any) -> list[dict[str, Any]]:
        answer = self.http.get("/api/v1/audit", query_string={"limit": 100, **filters}, headers=self.admin)
        assert answer.status_code == 200, answer.text
        return answer.json["data"]

    @staticmethod
    def _bearer(answer: Any) -> dict[str, str]:
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json['access_token']}"}


@pytest.fixture(scope="session")
def prepared_database(tmp_path_factory):
    """A migrated database with a signing key, to be copied: migrations are the slow part of an empty provider."""
    path = tmp_path_factory.mktemp("prepared") / "provider.db"
    url = f"sqlite:///{path}"
    schema.migrate(url)
    with Database(url) as store:
        ensure_signing_key(store, "ES256", (), Clock())
    return path


@pytest.fixture
def provider(tmp_path, prepared_database, github_keys):
    """A provider with an empty database, at noon of a fixed day."""
    path = copyfile(prepared_database, tmp_path / "provider.db")
    with _provider(f"sqlite:///{path}", github_keys) as opened:
        yield opened


@pytest.fixture(scope="module")
def still_provider(tmp_path_factory, prepared_database, github_keys):
    """A provider for a whole module, for tables of requests that are all refused: nothing may change in it."""
    path = copyfile(prepared_database, tmp_path_factory.mktemp("still") / "provider.db")
    with _provider(f"sqlite:///{path}", github_keys) as opened:
        yield opened


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def each_provider(request, tmp_path_factory, github_keys):
    """A provider for a whole module, once on each engine; what its tests write stays."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('each') / 'provider.db'}"
    else:
        cluster, name = request.getfixturevalue("postgres_cluster"), f"each_{uuid4().hex}"
        cluster.execute(f"CREATE DATABASE {name}")
        url = cluster.url(name)
    schema.migrate(url)
    with Database(url) as store:
        ensure_signing_key(store, "ES256", None, Clock())
    with _provider(url, github_keys) as opened:
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_provider(request):
    """A provider with an empty database, on each engine."""
    if request.param == "sqlite":
        yield request.getfixturevalue("provider")
        return
    url = request.getfixturevalue("postgres_url")
    schema.migrate(url)
    with Database(url) as store:
        ensure_signing_key(store, "ES256", None, Clock())
    with _provider(url, request.getfixturevalue("github_keys")) as opened:
        yield opened


@contextmanager
def _provider(url, github_keys):
    github = Issuer(GITHUB, ring=github_keys)
    with Database(url) as store:
        yield Provider(url, github, Clock(), GithubKeys(github), store)


@pytest.fixture(scope="session")
def refused():
    """Check that an answer is a refusal in the JSON shape, with this status, code and these details; returns it."""

    def check(answer, status: int, code: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
        assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
        assert answer.json.keys() == {"code", "message", "details", "requestId"}
        assert answer.json["requestId"] == answer.headers["X-Request-Id"]
        assert answer.json["message"].strip()
        if details is not None:
            assert answer.json["details"] == details
        return answer.json

    return check


@pytest.fixture(scope="session")
def invalid(refused):
    """Check that an answer is a 400 that names this field; returns the reason."""

    def check(answer, field: str) -> str:
        details = refused(answer, 400, "VALIDATION_ERROR")["details"]
        assert details.keys() == {"field", "reason"}
        assert details["field"].partition(".")[0] == field, answer.text
        return details["reason"]

    return check


@pytest.fixture(scope="session")
def oauth_refused():
    """Check that an answer is a refusal in RFC 6749's shape, whose description starts with our code; returns it."""

    def check(answer, status: int, error: str, code: str) -> dict[str, str]:
        assert (answer.status_code, answer.json.get("error")) == (status, error), answer.text
        assert answer.json.keys() == {"error", "error_description"}
        assert answer.json["error_description"].startswith(f"{code}: ")
        assert UUID(answer.headers["X-Request-Id"])
        return answer.json

    return check
