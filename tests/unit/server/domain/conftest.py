"""A run and a policy, of which domain tests change one field at a time."""

from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest

from kit import records
from sentryagent_idp.domain.identity import WorkflowIdentity

AGENT = UUID(int=1)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
RUN = {
    "issuer": "https://token.actions.githubusercontent.com",
    "sub": "repo:acme/api:ref:refs/heads/main",
    "jti": "4f7c",
    "iat": 1_795_521_600,
    "exp": 1_795_521_900,
    "repository": "acme/api",
    "repository_id": "101",
    "repository_owner_id": "7",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "event_name": "push",
    "sha": "a" * 40,
    "workflow_ref": "acme/api/.github/workflows/ci.yml@refs/heads/main",
    "job_workflow_ref": "acme/api/.github/workflows/ci.yml@refs/heads/main",
    "actor_id": "42",
    "runner_environment": "github-hosted",
    "repository_visibility": "private",
}


@pytest.fixture(scope="session")
def agent():
    return AGENT


@pytest.fixture(scope="session")
def now():
    return NOW


@pytest.fixture(scope="session")
def make_run():
    """Make a push to main of acme/api with these claims changed; the workflow's ref follows `ref`."""

    def make(**changes):
        claims = {**RUN, **changes}
        revision = claims["ref"] or claims["sha"]
        for name in ("workflow_ref", "job_workflow_ref"):
            if name not in changes:
                claims[name] = f"{claims['repository']}/.github/workflows/ci.yml@{revision}"
        return WorkflowIdentity(**claims)

    return make


@pytest.fixture(scope="session")
def make_policy():
    """Make a policy of acme/api for the agent without conditions, with these fields changed."""
    return partial(records.policy, NOW, id=UUID(int=1000), repository="acme/api", agent_id=AGENT)
