"""`deploy/compose.yaml`, a setup for a laptop that is not reachable from other machines."""

import pytest
import yaml

from kit.processes import ROOT
from sentryagent_idp.config import Settings, unknown_variables

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def test_what_is_built_is_there(services):
    """Each build's Dockerfile exists in its context."""
    builds = [service["build"] for service in services.values() if "build" in service]

    assert len(builds) == 2
    for build in builds:
        assert (DEPLOY / build["context"] / build["dockerfile"]).is_file(), build


def test_the_provider_takes_its_settings(services):
    """The variables are valid settings of the provider, and GitHub's issuer is the mock's address."""
    environment = services["provider"]["environment"]
    settings = Settings.from_environ(environment)

    assert list(unknown_variables(environment)) == []
    assert settings.github_issuers[0] in services["github"]["command"]
    assert services["github"]["network_mode"] == "service:provider"


def test_only_this_machine_reaches_it(services):
    """Ports are published on loopback only; the provider, whose network the mock shares, publishes the mock's port."""
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}

    assert published == {"provider": ["127.0.0.1:3000:3000", "127.0.0.1:3001:3001"]}


def test_the_database_is_the_one_that_the_url_names(services):
    """The provider's database URL has the database service's user, password, host and name."""
    database = services["database"]["environment"]

    assert services["provider"]["environment"]["SENTRYAGENT_DATABASE_URL"] == (
        f"postgresql+psycopg://{database['POSTGRES_USER']}:{database['POSTGRES_PASSWORD']}"
        f"@database/{database['POSTGRES_DB']}"
    )
    assert services["provider"]["depends_on"] == {"database": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", ["provider", "github"])
def test_what_we_build_runs_as_in_production(services, name):
    """Our images run read-only, without privileges and without volumes."""
    service = services[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "volumes" not in service
