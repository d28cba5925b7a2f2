"""The provider's application without sockets, with a real database, GitHub's tokens and a controlled clock."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partialmethod
from typing import Any, ClassVar, Self
from uuid import uuid4

from kit.clock import Clock
from kit.github import GithubKeys
from kit.tokens import basic, bearer
from mock_idp.job import Job
from sentryagent_idp.app import Dependencies, create_app, token_service
from sentryagent_idp.config import Settings
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.scopes import ALL_SCOPES
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.clients import ClientAdmin
from sentryagent_idp.use_cases.key_ring import KeyRing, ensure_signing_key
from sentryagent_idp.use_cases.refusals import CountedRefusals
from sentryagent_idp.use_cases.signing_keys import KeyAdmin

PROVIDER = "https://idp.example.com"
GITHUB = "https://token.actions.githubusercontent.com"
REPOSITORY = "octo-org/hello-agent"
NOBODY = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
"""An id that does not exist."""

EXCHANGE = "/api/v1/oidc/token"
POLICIES = "/api/v1/oidc/trust-policies"
AGENTS = "/api/v1/agents"
SERVICES = "/api/v1/services"
AUDIT = "/api/v1/audit"
TOKEN = "/api/v1/token"
INTROSPECT = "/api/v1/token/introspect"
REVOKE = "/api/v1/token/revoke"
FORM = "application/x-www-form-urlencoded"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HERE = RequestContext("test", None)


def prepare(url: str, alg: str = "ES256") -> str:
    """Create a database's tables and a signing key, as of noon, and return its URL."""
    schema.migrate(url)
    with Database(url) as store:
        ensure_signing_key(store, alg, (), Clock(NOW))
    return url


def key_admin(store: Database, clock: Callable[[], datetime], *passphrases: str) -> KeyAdmin:
    """The administration of a database's signing keys."""
    return KeyAdmin(store, Auditor(clock, uuid4), clock, passphrases)


def grant_form(client_id: str, secret: str, /, **changes: Any) -> dict[str, str]:
    """A client's token request (RFC 6749, 4.4) as a form; `changes` override fields, and `None` removes one."""
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret, **changes}
    return {name: value for name, value in form.items() if value is not None}


def good(answer: Any, status: int = 200) -> Any:
    """The JSON of a response that must have this status."""
    assert answer.status_code == status, answer.text
    return answer.json


def made(answer: Any) -> Any:
    """The JSON of a 201 response."""
    return good(answer, 201)


def issued_by(answer: Any) -> dict[str, str]:
    """The Authorization header for the token in a response."""
    return bearer(good(answer)["access_token"])


@dataclass
class Provider:
    """The application with its dependencies, and short methods for frequent requests."""

    url: str
    github: Any
    clock: Clock
    keys: GithubKeys
    store: Database
    environ: dict[str, str] = field(default_factory=dict)
    repository: ClassVar[str] = REPOSITORY
    usual: ClassVar[dict[str, str]] = {"SENTRYAGENT_PUBLIC_URL": PROVIDER}
    """The settings of every instance, unless `environ` overrides them."""

    def __post_init__(self) -> None:
        database = {"SENTRYAGENT_DATABASE_URL": self.url}
        self.settings = Settings.from_environ(self.usual | database | self.environ)
        dependencies = Dependencies(
            self.store, self.keys_by_issuer(), lambda: not schema.is_prepared(self.url), self.clock
        )
        self.refusal_counter = dependencies.refusal_counter
        self.metrics = dependencies.metrics
        self.app = create_app(self.settings, dependencies)
        self.exchange_use_case = self.app.extensions["sentryagent"].exchange
        self.http = self.app.test_client()
        self.admin = self.admin_headers()

    def keys_by_issuer(self) -> dict[str, Any]:
        """The keys of each configured issuer: the same for all, because one key ring signs all tests' ID tokens."""
        return dict.fromkeys(self.settings.github_issuers, self.keys)

    def with_settings(self, **variables: str) -> Self:
        """Another provider on the same database, with these `SENTRYAGENT_<NAME>` variables."""
        return replace(self, environ={f"SENTRYAGENT_{name}": value for name, value in variables.items()})

    def admin_headers(self, *scopes: str) -> dict[str, str]:
        tokens = token_service(self.settings, self.store, KeyRing(self.settings.passphrases), self.clock)
        return bearer(tokens.issue_to_admin("admin-cli", scopes or ALL_SCOPES, 3600, HERE)["access_token"])

    def call(self, method: str, path: str, headers: dict[str, str] | None = None, **request: Any) -> Any:
        """Send a request to the API, as an admin with all scopes unless other headers are given."""
        return self.http.open(
            path, method=method, headers=self.admin if headers is None else headers, **request
        )

    get = partialmethod(call, "GET")
    post = partialmethod(call, "POST")
    put = partialmethod(call, "PUT")
    patch = partialmethod(call, "PATCH")
    delete = partialmethod(call, "DELETE")

    def github_token(self, fault: str = "", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A new ID token for a push to main of octo-org/hello-agent; `claims` override, and `None` removes one."""
        self.github.clock.freeze(self.clock.now.timestamp())
        job = claims.pop("job", None) or Job()
        return self.github.mint(job, audience=PROVIDER, claims=claims, header=header, fault=fault)

    def exchange(self, token: str | None = None, **body: Any) -> Any:
        return self.http.post(EXCHANGE, json={"token": token or self.github_token(), **body})

    def policy(self, **members: Any) -> dict[str, Any]:
        """Create a policy, by default the bootstrap policy of the repository."""
        return made(self.post(POLICIES, json={"repository": self.repository, **members}))

    def replace_policy(self, policy: dict[str, Any], **members: Any) -> dict[str, Any]:
        """PUT the policy with these fields changed."""
        return good(self.put(f"{POLICIES}/{policy['id']}", json={**policy, **members}))

    def agent(self, email: str = "bot@octo-org.example", headers: Any = None, **members: Any) -> Any:
        return made(self.post(AGENTS, json={"email": email, **members}, headers=headers))

    def client(self, agent_id: str = "") -> tuple[str, str]:
        """The id and a new secret of an agent, which is created if none is given."""
        agent_id = agent_id or self.agent()["agentId"]
        return agent_id, made(self.post(f"{AGENTS}/{agent_id}/credentials"))["clientSecret"]

    def grant(self, client: tuple[str, str], headers: Any = None, **form: Any) -> Any:
        """Request a token with a client's id and secret."""
        return self.http.post(TOKEN, data=grant_form(*client, **form), headers=headers)

    def trusted_agent(self, **policy: Any) -> tuple[str, dict[str, Any]]:
        """The id of a new agent, and a policy for it with these fields."""
        agent_id = self.agent()["agentId"]
        return agent_id, self.policy(agentId=agent_id, **policy)

    def service(self, identifier: str, *scopes: str, **members: Any) -> dict[str, Any]:
        """Create a service with these scopes."""
        named = [{"name": name} for name in scopes]
        return made(self.post(SERVICES, json={"identifier": identifier, "scopes": named, **members}))

    def service_client(self, identifier: str) -> dict[str, str]:
        """The Authorization header with which a new client of the service introspects tokens."""
        admin = ClientAdmin(self.store, Auditor(self.clock, uuid4), self.clock, uuid4)
        client, secret = admin.create_for_service("admin-cli", "verifier", identifier, HERE)
        return basic(client.client_id, secret)

    def bootstrap_headers(self, **claims: Any) -> dict[str, str]:
        """The header with a bootstrap token; its policy must exist."""
        return issued_by(self.exchange(self.github_token(**claims)))

    def agent_headers(self, agent_id: str, **claims: Any) -> dict[str, str]:
        """The header with an agent's token; its policy must exist."""
        return issued_by(self.exchange(self.github_token(**claims), agentId=agent_id))

    def end_minute(self) -> int:
        """Write the counts of refusals, as the background process does once a minute; return the number of audit records."""
        auditor = Auditor(self.clock, uuid4)
        return CountedRefusals(self.store, auditor, self.refusal_counter, uuid4).run()

    def audit(self, **filters: Any) -> list[dict[str, Any]]:
        return good(self.get(AUDIT, query_string={"limit": 100, **filters}))["data"]
