"""Discovery, health and readiness, and database outages."""

import sqlite3

import pytest

from kit.provider import PROVIDER
from kit.refusals import assert_refused
from kit.tokens import kid_of, token_of
from sentryagent_idp.errors import DatabaseUnavailable
from sentryagent_idp.store import schema


def test_audience_is_open(provider):
    """Clients can read which audience to request without a token."""
    answer = provider.http.get("/api/v1/oidc/audience")

    assert (answer.status_code, answer.json) == (200, {"audience": PROVIDER})


def test_published_keys(provider):
    """The key set has only public fields and can be cached."""
    answer = provider.http.get("/.well-known/jwks.json")

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"].startswith("public, max-age=")
    assert len(answer.json["keys"]) >= 1
    for key in answer.json["keys"]:
        assert key.keys() <= {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (key["kty"], key["alg"], key["use"]) == ("EC", "ES256", "sig")
    signing = kid_of(token_of(provider.admin))
    assert signing in {key["kid"] for key in answer.json["keys"]}


def test_metadata(provider):
    """Both metadata documents name the issuer of our tokens, and endpoints that exist."""
    server = provider.http.get("/.well-known/oauth-authorization-server").json
    openid = provider.http.get("/.well-known/openid-configuration").json

    assert server["issuer"] == PROVIDER
    assert server.items() <= openid.items()
    assert openid["id_token_signing_alg_values_supported"] == ["ES256"]
    endpoints = {name: url for name, url in server.items() if name.endswith(("_endpoint", "_uri"))}
    assert endpoints.keys() >= {"token_endpoint", "jwks_uri", "introspection_endpoint", "revocation_endpoint"}
    for url in endpoints.values():
        assert provider.http.get(url.removeprefix(PROVIDER)).status_code in {200, 405}, url


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_ready(provider, path):
    """A provider that works is healthy and ready."""
    assert provider.http.get(path).status_code == 200


def test_ready_tells_each_part(provider):
    """/ready reports the database, the migrations, the signing key and GitHub's keys separately."""
    answer = provider.http.get("/ready").json

    assert (answer["status"], answer["database"], answer["migrations"], answer["signingKey"]) == (
        "ready",
        "ok",
        "ok",
        "ok",
    )
    assert answer["issuerKeys"]["state"] == "fresh"


def test_missing_issuer_keys_leave_it_ready(provider):
    """An outage of GitHub is reported but leaves the provider ready."""
    provider.keys.reachable = False

    answer = provider.http.get("/ready")

    assert (answer.status_code, answer.json["issuerKeys"]["state"]) == (200, "missing")


def _database(provider):
    return provider.url.removeprefix("sqlite:///")


def test_missing_signing_key(provider):
    """Without a signing key no token can be issued: 503, and /ready says why."""
    process = provider.with_settings()
    with sqlite3.connect(_database(provider)) as connection:
        connection.execute("DELETE FROM signing_keys")
    connection.close()

    answer = process.http.get("/ready")

    assert answer.status_code == 503
    assert (answer.json["status"], answer.json["signingKey"]) == ("unavailable", "missing")
    assert_refused(process.http.get("/.well-known/jwks.json"), 503, "SERVICE_UNAVAILABLE", {})
    assert process.http.get("/health").status_code == 200


def test_pending_migrations(provider):
    """An outdated database is a 503 that names the command to run."""
    with sqlite3.connect(_database(provider)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '021'")
    connection.close()

    answer = provider.http.get("/ready")

    assert answer.status_code == 503
    assert "sentryagent-idp migrate" in answer.json["migrations"]


def test_ready_while_the_database_is_away(provider, monkeypatch):
    """If the database is unavailable, so is the state of everything stored in it."""

    def fail(_):
        raise DatabaseUnavailable("The database is not responding; try again in 2 s.", retry_after=2)

    monkeypatch.setattr(schema, "is_prepared", fail)

    answer = provider.http.get("/ready")

    assert answer.status_code == 503
    assert {answer.json[part] for part in ("database", "migrations", "signingKey")} == {"unavailable"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/agents", None),
        ("POST", "/api/v1/agents", {"email": "a@octo-org.example"}),
        ("GET", "/api/v1/oidc/trust-policies", None),
        ("POST", "/api/v1/oidc/token", {"token": ""}),
        ("GET", "/api/v1/audit", None),
        ("GET", "/.well-known/jwks.json", None),
    ],
)
def test_database_outage(provider, monkeypatch, method, path, body):
    """During an outage every request that needs the database is a 503 with Retry-After; later it succeeds again."""
    provider.policy()
    body = {"token": provider.github_token()} if body == {"token": ""} else body

    def ask():
        return provider.call(method, path, json=body)

    def fail(*_):
        raise DatabaseUnavailable("The database is not responding; try again in 2 s.", retry_after=2)

    with monkeypatch.context() as patched:
        patched.setattr(provider.store, "read", fail)
        patched.setattr(provider.store, "write", fail)
        answer = ask()

    assert_refused(answer, 503, "SERVICE_UNAVAILABLE", {})
    assert answer.headers["Retry-After"] == "2"
    assert ask().status_code in {200, 201}
