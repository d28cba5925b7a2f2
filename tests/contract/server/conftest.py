"""The provider's application without sockets: a real SQLite file, the mock's ID tokens and a manual clock."""

from contextlib import contextmanager
from shutil import copyfile
from uuid import uuid4

import pytest

from kit.clock import Clock
from kit.github import GithubKeys
from kit.provider import GITHUB, NOW, Provider, prepare
from mock_idp.issuer import Issuer
from sentryagent_idp.store import schema
from sentryagent_idp.store.database import Database


@pytest.fixture(scope="session")
def github_keys():
    """One pair of RSA keys for the session, because generating them is slow."""
    return Issuer(GITHUB).ring


@pytest.fixture(scope="session")
def prepared_database(tmp_path_factory):
    """A migrated database with a signing key, to copy for each test, because migrations are slow."""
    path = tmp_path_factory.mktemp("prepared") / "provider.db"
    prepare(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(tmp_path, prepared_database):
    """The database file of a provider that has been served before."""
    return copyfile(prepared_database, tmp_path / "provider.db")


@pytest.fixture
def provider(database, github_keys):
    """A provider with an empty database; its clock is set to noon on a fixed day."""
    with _provider(f"sqlite:///{database}", github_keys) as opened:
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request, tmp_path):
    """A migrated database without keys, on each engine."""
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    url = url if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    schema.migrate(url)
    return url


@pytest.fixture
def client(provider):
    """The id and client secret of a new agent."""
    return provider.client()


@pytest.fixture(scope="module")
def still_provider(tmp_path_factory, prepared_database, github_keys):
    """A provider shared by a module, for tables of requests that are all refused: no test may change it."""
    path = copyfile(prepared_database, tmp_path_factory.mktemp("still") / "provider.db")
    with _provider(f"sqlite:///{path}", github_keys) as opened:
        yield opened


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def each_provider(request, tmp_path_factory, github_keys):
    """A provider shared by a module, once on each engine; rows written by its tests stay."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('each') / 'provider.db'}"
    else:
        cluster, name = request.getfixturevalue("postgres_cluster"), f"each_{uuid4().hex}"
        cluster.execute(f"CREATE DATABASE {name}")
        url = cluster.url(name)
    with _provider(prepare(url), github_keys) as opened:
        yield opened


@pytest.fixture(scope="module")
def both_providers(still_provider, postgres_cluster, github_keys):
    """A SQLite and a PostgreSQL provider without rate limits, for comparing responses; rows written stay."""
    name = f"both_{uuid4().hex}"
    postgres_cluster.execute(f"CREATE DATABASE {name}")
    with _provider(prepare(postgres_cluster.url(name)), github_keys) as opened:
        yield [provider.with_settings(RATE_LIMIT="0") for provider in (still_provider, opened)]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_provider(request):
    """A provider with an empty database, on each engine."""
    if request.param == "sqlite":
        yield request.getfixturevalue("provider")
        return
    url = prepare(request.getfixturevalue("postgres_url"))
    with _provider(url, request.getfixturevalue("github_keys")) as opened:
        yield opened


@contextmanager
def _provider(url, github_keys):
    github = Issuer(GITHUB, ring=github_keys)
    with Database(url) as store:
        yield Provider(url, github, Clock(NOW), GithubKeys(lambda: published(github.ring)), store)


def published(ring):
    """A ring's published keys by kid."""
    return {key.kid: key.private.public_key() for key in ring.published}
