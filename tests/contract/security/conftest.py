"""The provider's application as an attacker meets it: a real store and token reader, with GitHub's key in our hands."""

import sqlite3
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfile
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kit import hostile_tokens
from kit.clock import Clock
from kit.github import GithubKeys
from kit.hostile_tokens import AUDIENCE, HEADER
from kit.provider import EXCHANGE, Provider, prepare
from sentryagent_idp.store.database import Database


class Target(Provider):
    """A provider with methods to attack it; `github` is GitHub's private key."""

    repository = "acme/api"
    usual = {"SENTRYAGENT_PUBLIC_URL": AUDIENCE, "SENTRYAGENT_RATE_LIMIT": "0"}  # noqa: RUF012 - declared by the parent

    @property
    def file(self):
        return Path(self.url.removeprefix("sqlite:///"))

    def github_token(self, header=None, **claims):
        """A new token for a push to main of acme/api; `header` and `claims` override, and `...` removes one."""
        now = int(self.clock().timestamp())
        fresh = {"jti": str(uuid4()), "iat": now, "nbf": now - 300, "exp": now + 300}
        return hostile_tokens.mint(self.github, header, {**fresh, **claims})

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

    def agent(self, email="bot@acme.example"):
        return super().agent(email)["agentId"]

    def rows(self):
        """The number of rows in each table to which an exchange may write."""
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
    """A migrated database with a signing key, which tests copy."""
    file = tmp_path_factory.mktemp("prepared") / "provider.db"
    prepare(f"sqlite:///{file}", "RS256")
    return file


@contextmanager
def _target(prepared, folder, key):
    url = f"sqlite:///{copyfile(prepared, folder / 'provider.db')}"
    keys = GithubKeys(lambda: {HEADER["kid"]: key.public_key()})
    with Database(url) as store:
        yield Target(url, key, Clock(datetime.fromtimestamp(hostile_tokens.NOW, UTC)), keys, store)


@pytest.fixture
def target(prepared_database, tmp_path, github_key):
    """A provider without policies and agents."""
    with _target(prepared_database, tmp_path, github_key) as opened:
        yield opened


@pytest.fixture(scope="module")
def guarded(prepared_database, tmp_path_factory, github_key):
    """A provider that trusts acme/api on main, shared by tests whose requests must not change it."""
    with _target(prepared_database, tmp_path_factory.mktemp("guarded"), github_key) as opened:
        opened.policy(branch="main")
        yield opened


@pytest.fixture
def unchanged(guarded):
    """Assert that the test's requests to `guarded` add and remove no row."""
    before = guarded.rows()
    yield
    assert guarded.rows() == before


@pytest.fixture
def unchanged_but_for_refusals(guarded):
    """Assert that the test's requests to `guarded` write at most audit records of refusals, and use up no token."""
    before = guarded.rows()
    yield
    after = guarded.rows()
    written = after.pop("audit_log") - before.pop("audit_log")
    assert after == before
    assert written <= 2
