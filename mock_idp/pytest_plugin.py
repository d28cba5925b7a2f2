"""Fixtures for pytest; an entry point loads them in every run, so heavy modules are imported only on use.

`mock_idp` is a running mock, restored before each test; `github_oidc_env` gives the test the environment of a job;
`mock_idp_sub_form` runs a test once for each form of `sub`. The server has a port of its own and lives as long as the
session (of each pytest-xdist worker). Override `mock_idp_issuer` in a conftest.py for GHES, GHE.com or an enterprise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mock_idp.server import MockIdp

GithubOidcEnv = Callable[..., Mapping[str, str]]
"""The type of `github_oidc_env`."""


@pytest.fixture(scope="session")
def mock_idp_issuer() -> str:
    """The `iss` of the session's mock: a URL, a path such as `/_services/token`, or empty for its own URL."""
    return ""


@pytest.fixture(scope="session")
def mock_idp_server(mock_idp_issuer: str) -> Iterator[MockIdp]:
    """The session's mock on a free port of 127.0.0.1; tests should use `mock_idp`, which restores it."""
    from mock_idp.server import MockIdp

    with MockIdp(issuer=mock_idp_issuer) as running:
        yield running


@pytest.fixture
def mock_idp(mock_idp_server: MockIdp) -> MockIdp:
    """The mock with real time, its first keys, no faults, no jobs and an empty log."""
    mock_idp_server.restore()
    return mock_idp_server


@pytest.fixture
def github_oidc_env(
    mock_idp: MockIdp, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> GithubOidcEnv:
    """A function that gives the test the environment of a job with these options, such as `environment="production"`.

    It returns the variables. Those of another job that this machine may be running are removed. The workspace is an
    empty folder.
    """

    def become(**options: Any) -> Mapping[str, str]:
        import os

        from mock_idp.environment import JOB_PREFIXES
        from mock_idp.runner.engine import Folders

        job = mock_idp.job(**options)
        work: Path = tmp_path_factory.mktemp("github")
        folders = Folders(work, work / "workspace")
        folders.create(job["event"])
        variables: dict[str, str] = {**job["variables"], **folders.step_variables()}
        for name in [name for name in os.environ if name.startswith(JOB_PREFIXES)]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return variables

    return become


@pytest.fixture(params=[False, True], ids=["classic-sub", "immutable-sub"])
def mock_idp_sub_form(request: pytest.FixtureRequest) -> Mapping[str, bool]:
    """Job options for each form of `sub`: a test with `mock_idp.job(**mock_idp_sub_form)` runs twice."""
    return {"immutable_sub": request.param}
