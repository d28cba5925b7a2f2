"""Several replicas on one PostgreSQL database, or several workers on one SQLite file, act as one provider."""

from collections import Counter
from functools import partial

import pytest

from kit.threads import at_once

pytestmark = pytest.mark.xdist_group("faults")

RACERS = 40
TABLES = (
    "agents",
    "audit_log",
    "audit_seals",
    "oidc_trust_policies",
    "revoked_tokens",
    "signing_keys",
    "used_tokens",
)
REPOSITORY = "octo-org/hello-agent"


@pytest.fixture
def three(provide, postgres_url):
    """Three replicas that started at the same time on an empty database."""
    return provide(postgres_url, replicas=3, workers=1)


def _exchange(provider, replica, token=None, **body):
    token = token or provider.github.mint(audience=provider.issuer)
    with provider.replicas[replica].client("/api/v1") as client:
        return client.post("/oidc/token", json={"token": token, **body})


def _get(replica, path):
    with replica.client() as client:
        return client.get(path).json()


@pytest.mark.postgres
def test_replicas_that_start_together_agree(three):
    """One replica migrates the database and creates the keys; all publish the same keys."""
    published = [_get(replica, "/.well-known/jwks.json") for replica in three.replicas]

    assert published[0] == published[1] == published[2]
    assert len(three.rows("SELECT version_num FROM alembic_version")) == 1
    assert Counter(status for (status,) in three.rows("SELECT status FROM signing_keys")) == {
        "active": 1,
        "next": 1,
    }


@pytest.mark.postgres
def test_one_token_is_exchanged_once_in_all_replicas(three):
    """Forty concurrent exchanges of one token, spread over the replicas: one 200, and 401 `replayed` for the others."""
    token = three.github.mint(audience=three.issuer)

    answers = at_once(*(partial(_exchange, three, number % 3, token) for number in range(RACERS)))

    outcomes = Counter((it.status_code, it.json().get("details", {}).get("reason")) for it in answers)
    assert outcomes == {(200, None): 1, (401, "replayed"): RACERS - 1}


@pytest.mark.postgres
def test_an_admins_change_counts_at_once_everywhere(three):
    """After a revocation, a suspension, or a change or deletion of a policy, the next request to any replica respects it."""
    with three.api(0) as here, three.api(1) as there:
        (policy,) = here.get("/oidc/trust-policies").json()["data"]
        issued = _exchange(three, 1).json()["access_token"]
        agent = here.post("/agents", json={"email": "bot@octo-org.example"}).json()["agentId"]
        here.post(
            "/oidc/trust-policies", json={"repository": REPOSITORY, "agentId": agent}
        ).raise_for_status()
        assert _exchange(three, 1, agentId=agent).status_code == 200

        assert there.post("/token/introspect", data={"token": issued}).json()["active"] is True
        here.post("/token/revoke", data={"token": issued}).raise_for_status()
        assert there.post("/token/introspect", data={"token": issued}).json() == {"active": False}

        here.patch(f"/agents/{agent}", json={"status": "suspended"}).raise_for_status()
        assert _exchange(three, 2, agentId=agent).json()["code"] == "TRUST_POLICY_VIOLATION"

        here.put(f"/oidc/trust-policies/{policy['id']}", json={**policy, "enabled": False}).raise_for_status()
        assert _exchange(three, 2).json()["code"] == "TRUST_POLICY_VIOLATION"

        here.delete(f"/oidc/trust-policies/{policy['id']}").raise_for_status()
        assert there.get(f"/oidc/trust-policies/{policy['id']}").status_code == 404


def test_four_workers_on_sqlite_never_find_it_locked(provide, tmp_path, request):
    """Writers in several processes take turns, so that under load every exchange succeeds."""
    provider = provide(f"sqlite:///{tmp_path}/provider.db", workers=4)
    with provider.load() as load:
        load.run(200)

    assert load.outcomes().keys() == {(200, None)}
    assert "locked" not in provider.replicas[0].log.read_text()
    provider.assert_sound(load, request.node.name)


def test_replicas_go_on_with_the_schema_of_a_later_version(provider, request):
    """A later version's migration only adds columns; running replicas of this version stay ready and issue tokens."""
    with provider.load() as load:
        load.run(20)
        for table in TABLES:
            provider.execute(f"ALTER TABLE {table} ADD COLUMN later VARCHAR")
        provider.execute("UPDATE alembic_version SET version_num = '900'")
        load.run(40)

    assert load.outcomes().keys() == {(200, None)}
    for replica in provider.replicas:
        assert _get(replica, "/ready")["migrations"] == "ok"
    provider.assert_sound(load, request.node.name)
