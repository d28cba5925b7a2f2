"""The provider's application as an attacker meets it: its real store and token reader, and GitHub's key in our hands."""

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
    """A provider and the ways to attack it; `github` is GitHub's private key."""

    repository = "acme/api"
    usual = {"SENTRYAGENT_PUBLIC_URL": AUDIENCE, "SENTRYAGENT_RATE_LIMIT": "0"}  # noqa: RUF012 - the parent's

    @property
    def file(self):
        return Path(self.url.removeprefix("sqlite:///"))

    def github_token(self, header=None, **claims):
        """A token of a push to main of acme/api, issued now, with a `jti` of its own; `...` removes a member."""
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
