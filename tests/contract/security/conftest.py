"""The provider's application as an attacker meets it: its real store and token reader, and GitHub's key in our hands."""

import runpy
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copyfile
from types import SimpleNamespace
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from sentryagent_idp.app import World, create_app, token_service
from sentryagent_idp.config import Settings
from sentryagent_idp.domain.audit import RequestContext
from sentryagent_idp.domain.scopes import ALL_SCOPES
from sentryagent_idp.errors import InvalidOidcToken
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.key_ring import KeyRing, ensure_signing_key

CATALOGUE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "hostile_tokens.py")))
EXCHANGE = "/api/v1/oidc/token"


class Clock:
    """Stands at the moment at which the catalogue's tokens are issued, until it is turned."""

    def __init__(self):
        self.now = datetime.fromtimestamp(CATALOGUE.NOW, UTC)

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += timedelta(seconds=seconds)


class GithubKeys:
    """One published key."""

    def __init__(self, key):
        self._keys = {CATALOGUE.HEADER["kid"]: key.public_key()}

    def find(self, kid):
        if kid not in self._keys:
            raise InvalidOidcToken("unknown_key", "The key is not published; send a token of the issuer.")
        return self._keys[kid]

    def status(self):
        return {"state": "fresh", "ageSeconds": 1, "lastError": None}


@dataclass
class Target:
    """One provider and the ways to attack it; `environ` holds settings."""

    file: Path
    store: Database
    github_key: rsa.RSAPrivateKey
    clock: Clock
    environ: dict[str, str]

    def __post_init__(self):
        url = f"sqlite:///{self.file}"
        self.settings = Settings.from_environ(
            {
                "SENTRYAGENT_PUBLIC_URL": CATALOGUE.AUDIENCE,
                "SENTRYAGENT_DATABASE_URL": url,
                "SENTRYAGENT_RATE_LIMIT": "0",
                **self.environ,
            }
        )
        world = World(self.store, GithubKeys(self.github_key), lambda: False, self.clock)
        self.rejections = world.rejections
        self.app = create_app(self.settings, world)
        self.http = self.app.test_client()
        tokens = token_service(self.settings, self.store, KeyRing(()), self.clock)
        issued = tokens.issue_to_admin("admin-cli", ALL_SCOPES, 3600, RequestContext("test", None))
        self.admin_token = issued["access_token"]
        self.admin = {"Authorization": f"Bearer {self.admin_token}"}

    def with_settings(self, **variables):
        """Another process on the same database."""
        environ = {f"SENTRYAGENT_{name}": value for name, value in variables.items()}
        return Target(self.file, self.store, self.github_key, self.clock, environ)

    def github_token(self, header=None, **claims):
        """A token of a push to main of acme/api, issued now, with a `jti` of its own; `...` removes a member."""
        now = int(self.clock().timestamp())
        fresh = {"jti": str(uuid4()), "iat": now, "nbf": now - 300, "exp": now + 300}
        return CATALOGUE.mint(self.github_key, header, {**fresh, **claims})

    def exchange(self, token=None, **body):
        return self.http.post(EXCHANGE, json={"token": token or self.github_token(), **body})

    def exchange_form(self, token, **form):
        return self.http.post(
            EXCHANGE,
            data={
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": token,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                **form,
            },
        )

    def admin_call(self, method, path, **body):
        answer = self.http.open(f"/api/v1{path}", method=method, json=body or None, headers=self.admin)
        assert answer.status_code < 300, answer.text
        return answer.json

    def policy(self, **members):
        return self.admin_call("POST", "/oidc/trust-policies", **{"repository": "acme/api", **members})

    def agent(self, email="bot@acme.example"):
        return self.admin_call("POST", "/agents", email=email)["agentId"]

    def rows(self):
        """How many rows each table has that an exchange may write to."""
        tables = ("used_tokens", "audit_log", "oidc_trust_policies", "agents", "revoked_tokens")
        with closing(sqlite3.connect(self.file)) as database:
            return {it: database.execute(f"SELECT count(*) FROM {it}").fetchone()[0] for it in tables}


@pytest.fixture(scope="session")
def github_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def stranger_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def prepared_database(tmp_path_factory):
    """A migrated database with a signing key, to be copied."""
    file = tmp_path_factory.mktemp("prepared") / "provider.db"
    schema.migrate(f"sqlite:///{file}")
    with Database(f"sqlite:///{file}") as store:
        ensure_signing_key(store, "RS256", (), Clock())
    return file


@contextmanager
def _target(prepared, folder, key):
    file = copyfile(prepared, folder / "provider.db")
    with Database(f"sqlite:///{file}") as store:
        yield Target(file, store, key, Clock(), {})


@pytest.fixture
def target(prepared_database, tmp_path, github_key):
    """A provider without policies and agents."""
    with _target(prepared_database, tmp_path, github_key) as opened:
        yield opened


@pytest.fixture(scope="module")
def guarded(prepared_database, tmp_path_factory, github_key):
    """A provider that trusts acme/api on main, for tables of requests that must all change nothing in it."""
    with _target(prepared_database, tmp_path_factory.mktemp("guarded"), github_key) as opened:
        opened.policy(branch="main")
        yield opened


@pytest.fixture
def unchanged(guarded):
    """Whatever the test sends to `guarded`, no row comes, goes or is changed by it."""
    before = guarded.rows()
    yield
    assert guarded.rows() == before


@pytest.fixture
def unchanged_but_for_refusals(guarded):
    """What the test sends to `guarded` writes nothing but the audit records of refusals, and burns nothing."""
    before = guarded.rows()
    yield
    after = guarded.rows()
    written = after.pop("audit_log") - before.pop("audit_log")
    assert after == before
    assert written <= 2
