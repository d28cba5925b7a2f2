"""Admin clients: programs that get admin tokens with their own client secret."""

import uuid
from datetime import timedelta

import pytest

from kit.provider import HERE, INTROSPECT, NOW, REVOKE, TOKEN, issued_by
from kit.tokens import basic, bearer, token_of
from sentryagent_idp.errors import AdminRefused, DatabaseUnavailable
from sentryagent_idp.tokens import client_secret
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.clients import ClientAdmin


@pytest.fixture
def admin(provider):
    """Creates, rotates and revokes clients."""
    return ClientAdmin(provider.store, Auditor(provider.clock, uuid.uuid4), provider.clock, uuid.uuid4)


@pytest.fixture
def client(admin):
    """The id and secret of a client that may write agents and read policies."""
    made, secret = admin.create("admin-cli", "CI", ("agents:write", "policies:read"), HERE)
    return made.client_id, secret


def grant(provider, client, **form):
    form = {"grant_type": "client_credentials", **form}
    return provider.http.post(TOKEN, data=form, headers=basic(*client))


def test_token_of_a_client(provider, client):
    """A client gets an admin token with its scopes, by HTTP Basic or in the form."""
    for answer in (grant(provider, client), provider.grant(client)):
        assert answer.json["scope"] == "agents:write policies:read"
        assert answer.json["expires_in"] == 3600
        assert answer.headers["Cache-Control"] == "no-store"
        assert provider.http.get("/api/v1/oidc/trust-policies", headers=issued_by(answer)).status_code == 200
        assert provider.http.get("/api/v1/audit", headers=issued_by(answer)).status_code == 403
        agent = provider.agent(f"{uuid.uuid4()}@example.com", headers=issued_by(answer))
        credentials = f"/api/v1/agents/{agent['agentId']}/credentials"
        assert provider.http.post(credentials, headers=issued_by(answer)).status_code == 201


@pytest.mark.parametrize("scope", ["policies:read", "agents:read", "agents:write policies:read"])
def test_part_of_the_scopes(provider, client, scope):
    """A client may ask for fewer scopes; a write scope includes its read scope."""
    assert grant(provider, client, scope=scope).json["scope"] == scope


@pytest.mark.parametrize("scope", ["policies:write", "audit:read", "agents:write audit:read", "nonsense"])
def test_more_than_the_scopes(provider, client, scope):
    """A client that asks for more than its scopes gets no token and is told its scopes."""
    answer = grant(provider, client, scope=scope)

    assert (answer.status_code, answer.json["error"]) == (400, "invalid_scope")
    assert "The client does not have" in answer.json["error_description"]
    assert "agents:write policies:read" in answer.json["error_description"]


def test_ids_fit_into_basic_credentials(client):
    """A client id has no colon and cannot be taken for an agent's id."""
    assert client[0].startswith("admin-")
    assert ":" not in client[0]
    assert uuid.UUID(client[0].removeprefix("admin-"))


def test_new_secret(provider, admin, client):
    """After a rotation the old secret is refused at once and the new one works; tokens stay valid."""
    token = issued_by(grant(provider, client))
    _, secret = admin.rotate("admin-cli", client[0], HERE)

    assert grant(provider, client).status_code == 401
    assert grant(provider, (client[0], secret)).status_code == 200
    assert provider.http.get("/api/v1/agents", headers=token).status_code == 200


def test_old_secret_is_kept_for_a_while(provider, admin, client):
    """Both secrets work until the given time; the next rotation ends the old one earlier."""
    _, second = admin.rotate("admin-cli", client[0], HERE, timedelta(hours=1))
    assert [grant(provider, (client[0], it)).status_code for it in (client[1], second)] == [200, 200]

    provider.clock.advance(3599)
    assert grant(provider, client).status_code == 200
    provider.clock.advance(1)
    assert [grant(provider, (client[0], it)).status_code for it in (client[1], second)] == [401, 200]

    _, third = admin.rotate("admin-cli", client[0], HERE, timedelta(hours=1))
    _, fourth = admin.rotate("admin-cli", client[0], HERE, timedelta(hours=1))
    answers = [grant(provider, (client[0], it)).status_code for it in (second, third, fourth)]
    assert answers == [401, 200, 200]


def test_wrong_secret_costs_one_hash_next_to_a_kept_one(provider, admin, client, monkeypatch):
    """While two secrets work, each attempt costs one hash: no timing oracle and no doubled cost."""
    _, second = admin.rotate("admin-cli", client[0], HERE, timedelta(hours=1))
    hashed = []
    matches = client_secret.matches
    monkeypatch.setattr(client_secret, "matches", lambda *args: hashed.append(args) or matches(*args))

    answers = [grant(provider, (client[0], it)).status_code for it in ("wrong", client[1], second)]

    assert answers == [401, 200, 200]
    assert len(hashed) == 3


def test_client_expires(provider, admin):
    """An expired client's secret and tokens are refused; no token was issued beyond the expiry."""
    made, secret = admin.create("admin-cli", "CI", ("agents:read",), HERE, timedelta(days=1))
    provider.clock.advance(24 * 3600 - 60)
    answer = grant(provider, (made.client_id, secret))
    token = issued_by(answer)
    assert answer.json["expires_in"] == 60
    assert provider.http.get("/api/v1/agents", headers=token).status_code == 200

    provider.clock.advance(60)

    refused = provider.http.get("/api/v1/agents", headers=token)
    assert refused.status_code == 401
    assert "expired" in refused.json["message"]
    provider.admin = provider.admin_headers()
    assert provider.post(INTROSPECT, data={"token": token_of(token)}).json == {"active": False}
    assert grant(provider, (made.client_id, secret)).status_code == 401
    for attempt in (admin.rotate, admin.revoke):
        with pytest.raises(AdminRefused, match="is expired, which is final"):
            attempt("admin-cli", made.client_id, HERE)


def test_expired_client_of_a_service(provider, admin):
    """An expired client cannot introspect and does not keep its service from being deleted."""
    service = provider.service("https://deploy.example.com", "deploy")
    made, secret = admin.create_for_service(
        "admin-cli", "verifier", service["identifier"], HERE, timedelta(days=1)
    )
    ask = {"data": {"token": "x"}, "headers": basic(made.client_id, secret)}
    assert provider.http.post(INTROSPECT, **ask).status_code == 200
    path = f"/api/v1/services/{service['serviceId']}"
    assert provider.delete(path).json["details"]["clients"] == 1

    provider.clock.advance(24 * 3600)
    provider.admin = provider.admin_headers()

    assert provider.http.post(INTROSPECT, **ask).status_code == 401
    assert provider.delete(path).status_code == 204


def test_last_use(provider, admin, client):
    """A correct secret is recorded as a use, at most once a minute; a wrong one is not."""

    def last_used():
        return next(it.last_used_at for it in admin.all() if it.client_id == client[0])

    grant(provider, (client[0], "wrong"))
    assert last_used() is None
    grant(provider, client)
    assert last_used() == NOW
    for seconds, noted in ((59, 0), (1, 60)):
        provider.clock.advance(seconds)
        for process in (provider, provider.with_settings()):
            grant(process, client)
        assert last_used() == NOW + timedelta(seconds=noted)


def test_use_that_cannot_be_recorded(provider, admin, client, monkeypatch):
    """A service can still introspect while the database is read-only."""
    provider.service("https://deploy.example.com", "deploy")
    headers = provider.service_client("https://deploy.example.com")

    def read_only():
        raise DatabaseUnavailable("read-only", retry_after=1)

    monkeypatch.setattr(provider.store, "write", read_only)

    answer = provider.http.post(INTROSPECT, data={"token": "x"}, headers=headers)

    assert (answer.status_code, answer.json) == (200, {"active": False})


def test_names_that_are_not_unique(provider, admin):
    """Only active clients count when a name is checked for duplicates."""
    first, _ = admin.create("admin-cli", "CI", (), HERE, timedelta(days=1))
    assert not admin.is_named_twice(first)
    second, _ = admin.create("admin-cli", "CI", (), HERE)
    assert admin.is_named_twice(second)
    provider.clock.advance(24 * 3600)
    assert not admin.is_named_twice(second)


def test_revoked_client(provider, admin, client):
    """A revoked client's secret and tokens are refused at once, in every process and by introspection."""
    other = provider.with_settings()
    token = issued_by(grant(provider, client))
    assert other.http.get("/api/v1/agents", headers=token).status_code == 200

    admin.revoke("admin-cli", client[0], HERE)

    for process in (provider, other):
        answer = process.http.get("/api/v1/agents", headers=token)
        assert answer.status_code == 401
        assert "admin client was revoked" in answer.json["message"]
        assert grant(process, client).status_code == 401
    text = token_of(token)
    introspected = provider.post(INTROSPECT, data={"token": text})
    assert introspected.json == {"active": False}


def test_unknown_and_revoked_clients_have_no_second_life(admin, client):
    """An unknown or revoked client can be neither rotated nor revoked, and the error says why."""
    admin.revoke("admin-cli", client[0], HERE)
    for attempt in (admin.rotate, admin.revoke):
        with pytest.raises(AdminRefused, match="is revoked, which is final"):
            attempt("admin-cli", client[0], HERE)
        with pytest.raises(AdminRefused, match="`sentryagent-idp clients list`"):
            attempt("admin-cli", f"admin-{uuid.uuid4()}", HERE)


def test_client_revokes_its_own_tokens_by_its_secret(provider, client):
    """A client can revoke its own tokens and nobody else's, whatever its scopes."""
    token = issued_by(grant(provider, client))
    text = token_of(token)
    foreign = token_of(provider.admin)

    own = provider.http.post(REVOKE, data={"token": text}, headers=basic(*client))
    others = provider.http.post(REVOKE, data={"token": foreign}, headers=basic(*client))

    assert (own.status_code, others.status_code) == (200, 403)
    assert provider.http.get("/api/v1/agents", headers=token).status_code == 401


def test_what_admins_do_to_clients_is_audited(provider, admin, client):
    """Creating, rotating and revoking a client and each of its tokens are recorded, without any secret."""
    grant(provider, client)
    _, secret = admin.rotate("admin-cli", client[0], HERE)
    admin.revoke("admin-cli", client[0], HERE)

    records = {it["action"]: it for it in provider.audit() if client[0] in str(it)}

    assert set(records) == {"client.created", "client.rotated", "client.revoked", "admin.token_issued"}
    assert records["admin.token_issued"]["actor"] == client[0]
    assert records["client.created"]["details"]["scope"] == "agents:write policies:read"
    assert secret not in str(records)
    assert client[1] not in str(records)


UNPROVEN = [
    (lambda client: (client[0], "wrong"), True),
    (lambda client: (client[0], ""), True),
    (lambda _: (f"admin-{uuid.uuid4()}", "wrong"), False),
    (lambda _: ("admin-", "wrong"), False),
    (lambda _: ("admin-cli", "wrong"), False),
    (lambda client: (f"admin-{{{client[0].removeprefix('admin-')}}}", client[1]), False),
    (lambda client: (client[0].removeprefix("admin-"), client[1]), False),
    (lambda client: (client[0].upper(), client[1]), False),
    (lambda _: (str(uuid.uuid4()), "wrong"), False),
]


@pytest.mark.parametrize(("credentials", "known"), UNPROVEN)
def test_unproven_clients(provider, client, monkeypatch, credentials, known):
    """Wrong credentials are all refused alike after one hash; only a known client's are counted under its id."""
    hashed = []
    matches = client_secret.matches
    monkeypatch.setattr(client_secret, "matches", lambda *args: hashed.append(args) or matches(*args))

    answer = grant(provider, credentials(client))

    assert (answer.status_code, answer.json["error"]) == (401, "invalid_client")
    assert len(hashed) == 1
    ((kind, count),) = provider.refusal_counter.drain().items()
    assert (kind.code, kind.reason, kind.actor, count) == (
        "INVALID_CLIENT",
        "secret_refused",
        client[0] if known else "unverified",
        1,
    )


def test_failed_authentications_are_audited_by_their_number(provider, admin, client):
    """Wrong secrets and revoked tokens leave one record of each kind, with their count."""
    token = issued_by(grant(provider, client))
    for _ in range(3):
        grant(provider, (client[0], "guess"))
    admin.revoke("admin-cli", client[0], HERE)
    for _ in range(2):
        provider.http.get("/api/v1/agents", headers=token)
    provider.http.get("/api/v1/agents", headers=bearer("made-up"))
    assert provider.audit(action="auth.failed") == []

    provider.end_minute()

    records = provider.audit(action="auth.failed")
    assert {(it["actor"], it["details"]["reason"], it["details"]["count"]) for it in records} == {
        (client[0], "secret_refused", 3),
        (client[0], "client_revoked", 2),
        ("unverified", "token_refused", 1),
    }
    assert {it["outcome"] for it in records} == {"failure"}
