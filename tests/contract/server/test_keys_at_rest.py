"""Private keys in the database: encrypted under a replaceable key, and trusted only if they are ours."""

from dataclasses import replace

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from kit.provider import HERE, NOW, key_admin
from kit.tokens import bearer
from sentryagent_idp.domain.audit import AuditFilter
from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.errors import AdminRefused
from sentryagent_idp.store.database import Database
from sentryagent_idp.tokens import access_token, signing_key
from sentryagent_idp.tokens.access_token import AccessTokenClaims
from sentryagent_idp.tokens.signing_key import UnreadableKey
from sentryagent_idp.use_cases.key_ring import KeyRing, ensure_signing_key

OLD = "the old encryption key, of more than thirty-two characters"
NEW = "the new encryption key, of more than thirty-two characters"
LATER = NOW.replace(year=2030)
DISGUISE = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
STRANGE = "an encryption key that only a stranger knows, long enough"


def clock():
    """The fixed time of these tests."""
    return NOW


def admin_of(store, *passphrases):
    return key_admin(store, clock, *passphrases)


def stored_in(store):
    with store.read() as tx:
        return tx.signing_keys.all()


def pems(store):
    return {key.kid: key.private_pem for key in stored_in(store)}


def kids_of(ring, store):
    """The kids that a process publishes and verifies with."""
    with store.read() as tx:
        return ring.current(tx).by_kid.keys()


def actions(store):
    with store.read() as tx:
        records = tx.audit.page(AuditFilter(), page=1, limit=100).data
    return [it for it in records if it.action.startswith("key.")]


@pytest.fixture
def store(empty_url):
    """A database without keys."""
    with Database(empty_url) as opened:
        yield opened


# The steps of docs/operations.md: for each, the settings of replicas that run together, the newest last.
CHANGE = [
    ((OLD,), (OLD, NEW)),
    ((OLD, NEW), (NEW, OLD)),
    "rewrap",
    ((NEW, OLD), (NEW,)),
]


def test_the_encryption_key_is_changed_without_an_outage(store):
    """In every step each replica reads every key, including those another replica creates meanwhile."""
    ensure_signing_key(store, "ES256", (OLD,), clock)
    for step in CHANGE:
        if step == "rewrap":
            admin_of(store, NEW, OLD).rewrap("admin-cli", HERE)
            continue
        rings = [KeyRing(passphrases) for passphrases in step]
        for passphrases in step:
            ensure_signing_key(store, "ES256", passphrases, clock)
            for _ in range(2):
                signing = admin_of(store, *passphrases).rotate("admin-cli", HERE)
                for ring in (*rings, *(KeyRing(it) for it in step)):
                    assert kids_of(ring, store) == pems(store).keys()
                    assert ring.cached.active.kid == signing.kid

    ensure_signing_key(store, "ES256", (NEW,), clock)
    with pytest.raises(UnreadableKey, match="check that SENTRYAGENT_KEY_ENCRYPTION_KEY"):
        ensure_signing_key(store, "ES256", (OLD,), clock)


@pytest.mark.parametrize("settings", [(), (STRANGE,), (NEW, STRANGE)])
def test_a_wrong_encryption_key_is_told_before_anything_changes(store, settings):
    """Start, rotation, revocation and `rewrap` fail and change nothing if a key cannot be read."""
    ensure_signing_key(store, "ES256", (OLD,), clock)
    before, admin = stored_in(store), admin_of(store, *settings)

    for attempt in (
        lambda: ensure_signing_key(store, "RS256", settings, clock),
        lambda: admin.rotate("admin-cli", HERE),
        lambda: admin.revoke("admin-cli", before[0].kid, HERE),
        lambda: admin.rewrap("admin-cli", HERE),
    ):
        with pytest.raises((UnreadableKey, AdminRefused), match="SENTRYAGENT_KEY_ENCRYPTION_KEY"):
            attempt()

    assert stored_in(store) == before


def test_rewrap(store):
    """Unencrypted keys and those under the previous key are encrypted under the current one, in one audit record."""
    ensure_signing_key(store, "ES256", (OLD,), clock)
    clear = a_row("ES256", (), KeyStatus.RETIRED)
    current = a_row("EdDSA", (NEW,), KeyStatus.RETIRED)
    with store.write() as tx:
        tx.signing_keys.add(clear)
        tx.signing_keys.add(current)
    before = pems(store)
    admin = admin_of(store, NEW, OLD)

    changed = admin.rewrap("admin-cli", HERE)

    after = pems(store)
    assert {key.kid for key in changed} == before.keys() - {current.kid}
    assert after.keys() == before.keys()
    assert {kid for kid in after if after[kid] == before[kid]} == {current.kid}
    for kid, pem in after.items():
        assert b"BEGIN ENCRYPTED" in pem
        assert signing_key.from_pem(pem, (NEW,)).kid == kid
    record = next(it for it in actions(store) if it.action == "key.rewrapped")
    assert (record.actor, set(record.details["kids"])) == ("admin-cli", {key.kid for key in changed})
    assert record.details["clearKids"] == [clear.kid]
    assert "PRIVATE" not in str(record)

    records = len(actions(store))
    assert admin.rewrap("admin-cli", HERE) == []
    assert (pems(store), len(actions(store))) == (after, records)


def test_rewrap_is_all_or_nothing(store):
    """One unreadable key leaves every key and the audit log unchanged."""
    ensure_signing_key(store, "ES256", (OLD,), clock)
    with store.write() as tx:
        tx.signing_keys.add(a_row("ES256", (STRANGE,), KeyStatus.RETIRED))
    before, records = pems(store), len(actions(store))

    with pytest.raises(UnreadableKey, match="cannot be read"):
        admin_of(store, NEW, OLD).rewrap("admin-cli", HERE)

    assert (pems(store), len(actions(store))) == (before, records)


def test_a_running_process_goes_on_over_a_rewrap(store):
    """A running process keeps its decrypted keys; a rewrap also makes a key readable that was not before."""
    ensure_signing_key(store, "ES256", (), clock)
    without_key, told = KeyRing(()), []
    with_key = KeyRing((NEW,), told.append)
    kids_of(without_key, store)

    admin_of(store, NEW).rewrap("admin-cli", HERE)
    assert kids_of(without_key, store) == kids_of(with_key, store) == pems(store).keys()

    admin_of(store, OLD, NEW).rotate("admin-cli", HERE)
    assert kids_of(with_key, store) < pems(store).keys()
    assert len(told) == 1
    admin_of(store, NEW, OLD).rewrap("admin-cli", HERE)
    assert kids_of(with_key, store) == pems(store).keys()


def test_the_first_encryption_key_needs_rewrap_once(store):
    """With a first encryption key, unencrypted keys prevent a start until they are rewrapped."""
    ensure_signing_key(store, "ES256", (), clock)
    before = stored_in(store)

    with pytest.raises(UnreadableKey, match="`sentryagent-idp keys rewrap`"):
        ensure_signing_key(store, "ES256", (NEW,), clock)
    assert stored_in(store) == before

    admin_of(store, NEW).rewrap("admin-cli", HERE)
    ensure_signing_key(store, "ES256", (NEW,), clock)
    assert [key.kid for key in stored_in(store)] == [key.kid for key in before]


def test_a_new_database_starts_with_an_encryption_key(store):
    """In a new database the first keys are encrypted from the beginning."""
    ensure_signing_key(store, "ES256", (NEW, OLD), clock)

    assert [bool(signing_key.from_pem(pem, (NEW,))) for pem in pems(store).values()] == [True, True]
    with pytest.raises(AdminRefused, match="SENTRYAGENT_KEY_ENCRYPTION_KEY"):
        admin_of(store).rewrap("admin-cli", HERE)


def a_row(alg, passphrases, status, created_at=NOW):
    """A row with a new key."""
    key = signing_key.generate(alg)
    return StoredKey(key.kid, alg, signing_key.to_pem(key, passphrases), status, created_at)


def disguised(row):
    """An unencrypted key behind the first line of an encrypted one."""
    return replace(row, private_pem=DISGUISE + row.private_pem)


# What an attacker with write access to the table, but without the encryption key, can plant.
PLANTED = {
    "unencrypted, retired": lambda _: a_row("ES256", (), KeyStatus.RETIRED),
    "unencrypted, next": lambda _: a_row("ES256", (), KeyStatus.NEXT),
    "unencrypted, active, newest": lambda _: a_row("ES256", (), KeyStatus.ACTIVE, created_at=LATER),
    "under another key": lambda _: a_row("ES256", (STRANGE,), KeyStatus.ACTIVE, created_at=LATER),
    "in disguise": lambda _: disguised(a_row("ES256", (), KeyStatus.RETIRED)),
    "ours, under another kid": lambda ours: replace(ours, kid="A" * 43, status=KeyStatus.RETIRED),
}


@pytest.fixture
def encrypted(provider):
    """A provider with encrypted keys and a policy, and its genuine active key."""
    admin_of(provider.store, NEW).rewrap("admin-cli", HERE)
    encrypted = provider.with_settings(KEY_ENCRYPTION_KEY=NEW)
    encrypted.policy()
    return encrypted, next(key for key in stored_in(provider.store) if key.status is KeyStatus.ACTIVE)


def forged_by(row, provider):
    """An admin token forged with the private key of the row."""
    is_clear = b"-----BEGIN PRIVATE KEY-----" in row.private_pem
    pem = row.private_pem.removeprefix(DISGUISE) if is_clear else row.private_pem
    key = signing_key.from_pem(pem, () if is_clear else (STRANGE,))
    now = int(provider.clock().timestamp())
    claims = AccessTokenClaims(
        iss="https://idp.example.com",
        sub="admin-cli",
        aud="https://idp.example.com",
        client_id="admin-cli",
        scope="agents:read",
        iat=now,
        exp=now + 300,
        jti="forged",
    )
    return bearer(access_token.issue(key, claims))


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_key_is_worth_nothing(encrypted, planted):
    """A planted key is neither published nor trusted; the genuine keys still work, and the log names it once."""
    provider, genuine = encrypted
    published = provider.http.get("/.well-known/jwks.json").json
    row = PLANTED[planted](genuine)
    with provider.store.write() as tx:
        tx.signing_keys.add(row)

    with capture_logs() as logged:
        after = provider.http.get("/.well-known/jwks.json").json
        exchanged = provider.exchange()
        if planted != "ours, under another kid":
            assert provider.http.get("/api/v1/agents", headers=forged_by(row, provider)).status_code == 401

    assert after == published
    assert exchanged.status_code == 200
    assert provider.get("/api/v1/agents").status_code == 200
    (entry,) = [it for it in logged if it["log_level"] == "error"]
    assert row.kid in entry["reason"]


def test_a_key_that_lies_as_text_stops_nobody(encrypted):
    """SQLite accepts text in a binary column: such a key is treated as unencrypted and causes no 500."""
    provider, _ = encrypted
    row = a_row("ES256", (), KeyStatus.RETIRED)
    with provider.store.write() as tx:
        tx.signing_keys.add(row)
        statement = text("UPDATE signing_keys SET private_pem = CAST(private_pem AS TEXT) WHERE kid = :kid")
        tx.settings._connection.execute(statement, {"kid": row.kid})

    published = provider.http.get("/.well-known/jwks.json").json["keys"]

    assert row.kid not in {key["kid"] for key in published}
    assert provider.exchange().status_code == 200


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_key_is_told_and_can_be_removed(encrypted, planted):
    """The next start and the commands refuse a planted key; `revoke` removes it, even next to another one."""
    provider, genuine = encrypted
    rows = [PLANTED[planted](genuine), a_row("ES256", (), KeyStatus.RETIRED)]
    with provider.store.write() as tx:
        for row in rows:
            tx.signing_keys.add(row)
    admin = admin_of(provider.store, NEW)

    for attempt in (
        lambda: ensure_signing_key(provider.store, "ES256", (NEW,), clock),
        admin.all,
        lambda: admin.rotate("admin-cli", HERE),
        lambda: admin.revoke("admin-cli", genuine.kid, HERE),
    ):
        with pytest.raises(UnreadableKey, match="Signing key"):
            attempt()
    for row in rows:
        admin.revoke("admin-cli", row.kid, HERE)

    ensure_signing_key(provider.store, "ES256", (NEW,), clock)
    assert admin.rotate("admin-cli", HERE).kid != genuine.kid
    assert genuine.kid in {key.kid for key in admin.all()}


def test_a_row_with_another_algorithm_is_refused(store):
    """The algorithm is that of the key; a row that names another one is refused."""
    ensure_signing_key(store, "ES256", (NEW,), clock)
    with store.write() as tx:
        tx.signing_keys.add(replace(a_row("EdDSA", (NEW,), KeyStatus.RETIRED), alg="ES256"))

    with pytest.raises(UnreadableKey, match="its row contains a different key"):
        ensure_signing_key(store, "ES256", (NEW,), clock)
