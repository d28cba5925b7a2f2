"""An upgrade from an older version with its data: both versions serve side by side, and no request is lost."""

import functools
import io
import subprocess
import sys
import tarfile

import pytest

from kit.processes import ROOT, Served, output_of, run, start
from kit.threads import at_once

pytestmark = pytest.mark.xdist_group("faults")

OLD = "e00f6cf"
"""The last commit before migration 025; its package was called `server`."""
REPOSITORY = "octo-org/hello-agent"
ENCRYPTION_KEY = "0123456789abcdef0123456789abcdef"
SOME = 60
STEADY = {"clients": 2, "pause": 0.02}


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory):
    """The source of the older version."""
    if run("git", "cat-file", "-e", f"{OLD}^{{commit}}", cwd=ROOT).returncode:
        pytest.skip(f"this clone does not have the commit {OLD}")
    folder = tmp_path_factory.mktemp("old")
    archive = subprocess.run(["git", "archive", OLD, "server"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
        tree.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old_replica(old_tree):
    """The class of replicas that run the older version and its commands."""

    class OldReplica(Served):
        def start(self):
            words = ("python", "-m", "server.cli", "serve", "--port", self.port, *self._flags)
            self.process = start(self.log, self.environ, *words, cwd=old_tree)

        def command(self, *words):
            program = (sys.executable, "-m", "server.cli")
            return output_of(*program, *words, env=self.environ, cwd=old_tree).strip()

    return OldReplica


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/provider.db"
    return request.getfixturevalue("postgres_url")


def _exchange(provider, token, **body):
    with provider.replicas[0].client("/api/v1") as client:
        return client.post("/oidc/token", json={"token": token, **body})


def _outcome(provider, token, **body):
    answer = _exchange(provider, token, **body)
    return answer.status_code, answer.json().get("details", {}).get("reason")


def test_an_upgrade_loses_nothing(provide, old_replica, url, request):
    """Migrate while the old version serves, start the new one, stop the old one: every response is a 200."""
    old = provide(url, workers=1, kind=old_replica, KEY_ENCRYPTION_KEY=ENCRYPTION_KEY)
    agent, suspended = _trusted_agents(old, "bot@octo-org.example", "other@octo-org.example")
    used = old.github.mint(audience=old.issuer)
    issued = _exchange(old, used).json()["access_token"]

    with old.load(agentId=agent, **STEADY) as before:
        before.run(SOME)
        assert Served.command(old.replicas[0], "migrate").startswith("applied 025")
        before.run(SOME)
        new = provide(url, workers=1, KEY_ENCRYPTION_KEY=ENCRYPTION_KEY)
        with new.load(agentId=agent, **STEADY) as after:
            after.run(SOME)
            _assert_one_provider(old, new, used, issued)
            _assert_changes_count(old, new, suspended)
            new.command("keys", "rotate")
            before.run(SOME)
            after.run(SOME)
            _assert_tokens_are_good(old, new, before.jobs[-5:] + after.jobs[-5:])
    assert old.replicas[0].stop() == 0

    for load in (before, after):
        assert load.outcomes().keys() == {(200, None)}, load.outcomes()
        new.assert_sound(load, request.node.name)
    new.command("audit", "verify")


def _trusted_agents(provider, *emails):
    """Create agents, each with a policy, and return their ids."""
    with provider.api() as api:
        agents = [api.post("/agents", json={"email": email}).json()["agentId"] for email in emails]
        for agent in agents:
            policy = {"repository": REPOSITORY, "agentId": agent}
            api.post("/oidc/trust-policies", json=policy).raise_for_status()
    return agents


def _assert_one_provider(old, new, used, issued):
    """Assert that a token used at one version is a replay at the other, which accepts the issued access tokens."""
    assert _outcome(new, used) == (401, "replayed")
    token = new.github.mint(audience=new.issuer)
    assert _outcome(new, token) == (200, None)
    assert _outcome(old, token) == (401, "replayed")
    contested = new.github.mint(audience=new.issuer)
    races = at_once(*(functools.partial(_outcome, it, contested) for it in (old, new) * 4))
    assert sorted(races, key=str) == [(200, None), *[(401, "replayed")] * 7]
    assert _is_active(old, issued)
    assert _is_active(new, issued)


def _assert_tokens_are_good(old, new, jobs):
    """Assert that each version's tokens are valid at both, even after a rotation, and that a revocation counts at both."""
    tokens = [job.issued for job in jobs if job.issued]
    assert len(tokens) > 5
    assert all(_is_active(provider, token) for provider in (old, new) for token in tokens)
    for provider, other, token in ((old, new, tokens[0]), (new, old, tokens[-1])):
        with provider.api() as api:
            api.post("/token/revoke", data={"token": token}).raise_for_status()
        assert not _is_active(other, token)


def _is_active(provider, token):
    with provider.api() as api:
        return api.post("/token/introspect", data={"token": token}).json()["active"]


def _assert_changes_count(old, new, agent):
    """Assert that a change at one version takes effect with the next request at the other."""
    with old.api() as there, new.api() as here:
        late = there.post("/agents", json={"email": "late@octo-org.example"}).json()["agentId"]
        assert here.get(f"/agents/{late}").status_code == 200
        here.patch(f"/agents/{agent}", json={"status": "suspended"}).raise_for_status()
        refused = _exchange(old, old.github.mint(audience=old.issuer), agentId=agent)
        assert refused.json()["code"] == "TRUST_POLICY_VIOLATION"
        there.patch(f"/agents/{agent}", json={"status": "active"}).raise_for_status()
        assert _outcome(new, new.github.mint(audience=new.issuer), agentId=agent) == (200, None)
        secret = there.post(f"/agents/{agent}/credentials").json()["clientSecret"]
        form = {"grant_type": "client_credentials", "client_id": agent, "client_secret": secret}
        assert here.post("/token", data=form, headers={"Authorization": ""}).status_code == 200
