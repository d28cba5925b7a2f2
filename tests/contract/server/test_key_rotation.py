"""The life cycle of signing keys (next, active, retired, removed), over HTTP and in several processes."""

import uuid
from contextlib import contextmanager
from datetime import timedelta

import jwt
import pytest

from kit.clock import Clock
from kit.provider import HERE, NOW, key_admin
from kit.threads import at_once
from kit.tokens import kid_of
from sentryagent_idp.domain.signing_key import KeyStatus
from sentryagent_idp.errors import AdminRefused
from sentryagent_idp.store.database import Database
from sentryagent_idp.tokens import signing_key
from sentryagent_idp.tokens.signing_key import UnreadableKey
from sentryagent_idp.use_cases.audit import Auditor
from sentryagent_idp.use_cases.key_ring import ensure_signing_key
from sentryagent_idp.use_cases.signing_keys import RetiredKeys


@pytest.fixture
def admin(provider):
    """Rotates and revokes the provider's signing keys."""
    return key_admin(provider.store, provider.clock)


@pytest.fixture
def retired(provider):
    """Removes retired keys, for access tokens that live one hour."""
    auditor = Auditor(provider.clock, uuid.uuid4)
    return RetiredKeys(provider.store, auditor, provider.clock, uuid.uuid4, token_ttl=3600)


def by_status(store):
    """The kids by status."""
    with store.read() as tx:
        keys = tx.signing_keys.all()
    return {status: [key.kid for key in keys if key.status is status] for status in KeyStatus}


def published(provider):
    return [key["kid"] for key in provider.http.get("/.well-known/jwks.json").json["keys"]]


def signer(headers):
    """The kid of the key that signed a token."""
    return kid_of(headers["Authorization"].partition(" ")[2])


def status_of(provider, headers):
    return provider.http.get("/api/v1/agents", headers=headers).status_code


def test_next_key_is_published_before_it_signs(provider):
    """A new provider publishes two keys and signs with one."""
    keys = by_status(provider.store)

    assert [len(keys[status]) for status in KeyStatus] == [1, 1, 0]
    assert sorted(published(provider)) == sorted(keys[KeyStatus.NEXT] + keys[KeyStatus.ACTIVE])
    assert signer(provider.admin) == keys[KeyStatus.ACTIVE][0]


def test_rotation(provider, admin):
    """The next key signs, the old one still verifies and a new one is published, without a restart."""
    other = provider.with_settings()
    before = by_status(provider.store)
    old_token = provider.admin

    now_signing = admin.rotate("admin-cli", HERE)

    after = by_status(provider.store)
    assert after[KeyStatus.ACTIVE] == before[KeyStatus.NEXT] == [now_signing.kid]
    assert after[KeyStatus.RETIRED] == before[KeyStatus.ACTIVE]
    assert after[KeyStatus.NEXT] not in before.values()
    for process in (provider, other):
        assert len(published(process)) == 3
        assert signer(process.admin_headers()) == now_signing.kid
        assert status_of(process, old_token) == 200


def test_exchange_signs_with_the_active_key(provider, admin):
    """After a rotation the next exchange uses the new key."""
    provider.policy()
    now_signing = admin.rotate("admin-cli", HERE)

    assert signer(provider.bootstrap_headers()) == now_signing.kid


@pytest.mark.parametrize("status", list(KeyStatus))
def test_revocation(provider, admin, status):
    """A revoked key leaves the JWKS, its tokens are refused in every process, and an active and a next key remain."""
    other = provider.with_settings()
    token = provider.admin
    admin.rotate("admin-cli", HERE)
    (kid,) = by_status(provider.store)[status]
    newer = provider.admin_headers()

    now_signing = admin.revoke("admin-cli", kid, HERE)

    keys = by_status(provider.store)
    assert [len(keys[it]) for it in (KeyStatus.NEXT, KeyStatus.ACTIVE)] == [1, 1]
    assert keys[KeyStatus.ACTIVE] == [now_signing.kid]
    for process in (provider, other):
        assert kid not in published(process)
        assert status_of(process, token) == (401 if status is KeyStatus.RETIRED else 200)
        assert status_of(process, newer) == (401 if status is KeyStatus.ACTIVE else 200)
        assert status_of(process, process.admin_headers()) == 200


def test_revoking_the_active_key_promotes_the_published_one(provider, admin):
    """The next key, which verifiers already have, becomes active."""
    keys = by_status(provider.store)

    admin.revoke("admin-cli", keys[KeyStatus.ACTIVE][0], HERE)

    assert by_status(provider.store)[KeyStatus.ACTIVE] == keys[KeyStatus.NEXT]


def test_unknown_key(provider, admin):
    """Revoking an unknown key changes nothing, and the error names the command that lists the keys."""
    before = by_status(provider.store)

    with pytest.raises(AdminRefused, match=r"no signing key nope; `sentryagent-idp keys list`"):
        admin.revoke("admin-cli", "nope", HERE)

    assert by_status(provider.store) == before


def test_what_admins_do_to_keys_is_audited(provider, admin):
    """Creating, rotating and revoking keys are recorded with the key and the resulting statuses."""
    old = by_status(provider.store)[KeyStatus.ACTIVE][0]
    admin.rotate("admin-cli", HERE)
    admin.revoke("admin-cli", old, HERE)
    provider.admin = provider.admin_headers()

    revoked, rotated, created = [it for it in provider.audit() if it["action"].startswith("key.")]

    assert [it["action"] for it in (revoked, rotated, created)] == [
        "key.revoked",
        "key.rotated",
        "key.created",
    ]
    assert [it["actor"] for it in (revoked, rotated, created)] == ["admin-cli", "admin-cli", "provider"]
    assert revoked["details"]["kid"] == rotated["details"]["kid"] == old
    assert rotated["details"]["retiredKids"] == [old]
    assert revoked["details"]["retiredKids"] == []
    assert created["details"]["activeKids"] == [old]
    assert "PRIVATE" not in str([revoked, rotated, created])


def test_retired_key_stays_until_its_last_token_is_past(provider, admin, retired):
    """A retired key is removed when the last token it may have signed has expired, leeway included."""
    admin.rotate("admin-cli", HERE)
    (old,) = by_status(provider.store)[KeyStatus.RETIRED]

    provider.clock.advance(3630)
    assert retired.run() == 0
    assert old in published(provider)

    provider.clock.advance(1)
    assert retired.run() == 1
    assert retired.run() == 0
    assert old not in published(provider)
    provider.admin = provider.admin_headers()
    assert provider.audit(action="key.removed")[0]["details"]["kid"] == old


@pytest.mark.parametrize("alg", ["RS256", "EdDSA"])
def test_other_algorithm_at_the_next_start(provider, alg):
    """The old key is retired and still verifies; the active and the next key use the new algorithm."""
    before = by_status(provider.store)
    token = provider.admin

    ensure_signing_key(provider.store, alg, (), provider.clock)

    after = by_status(provider.store)
    with provider.store.read() as tx:
        algs = {key.status: key.alg for key in tx.signing_keys.all()}
    assert algs == {KeyStatus.ACTIVE: alg, KeyStatus.NEXT: alg, KeyStatus.RETIRED: "ES256"}
    assert after[KeyStatus.RETIRED] == before[KeyStatus.ACTIVE]
    assert before[KeyStatus.NEXT][0] not in published(provider)
    assert status_of(provider, token) == 200
    assert jwt.get_unverified_header(provider.admin_headers()["Authorization"][7:])["alg"] == alg


def test_start_with_keys_in_order_changes_nothing(provider):
    """A second start creates no key and no audit record."""
    before, records = by_status(provider.store), len(provider.audit())

    ensure_signing_key(provider.store, "ES256", (), provider.clock)

    assert by_status(provider.store) == before
    assert len(provider.audit()) == records


def test_rotation_keeps_the_algorithm_of_the_running_provider(provider, admin):
    """A new key has the algorithm of the active one, so the command line need not know it."""
    ensure_signing_key(provider.store, "EdDSA", (), provider.clock)
    admin.rotate("admin-cli", HERE)

    with provider.store.read() as tx:
        assert [key.alg for key in tx.signing_keys.all() if key.status is KeyStatus.NEXT] == ["EdDSA"]


def test_lately_published_key_is_told(provider, admin):
    """For a key that verifiers may not have yet, the seconds until their cached JWKS expires are returned."""
    provider.clock.advance(100)
    assert admin.unseen_for(admin.rotate("admin-cli", HERE)) == 200
    provider.clock.advance(1000)
    assert admin.unseen_for(admin.rotate("admin-cli", HERE)) == 0


def test_replicas_that_start_together_make_one_pair_of_keys(empty_url, provider):
    """When replicas start together, one creates the keys and the others find them."""

    def start():
        with Database(empty_url) as store:
            ensure_signing_key(store, "ES256", (), provider.clock)

    assert at_once(*[start] * 4) == [None] * 4
    with Database(empty_url) as store:
        assert [len(kids) for kids in by_status(store).values()] == [1, 1, 0]


def test_no_key_to_rotate(empty_url, provider):
    """In a database without keys there is nothing to rotate or revoke, and no key is created."""
    with Database(empty_url) as store:
        admin = key_admin(store, provider.clock)
        for attempt in (
            lambda: admin.rotate("admin-cli", HERE),
            lambda: admin.revoke("admin-cli", "x", HERE),
        ):
            with pytest.raises(AdminRefused, match="no signing key yet"):
                attempt()
        assert admin.all() == []


OLD = "the old encryption key, of more than thirty-two characters"
NEW = "the new encryption key, of more than thirty-two characters"


class WatchedDatabase(Database):
    """A database that knows whether a write transaction is open, and runs `meanwhile` just before the next one."""

    is_writing = False
    meanwhile = staticmethod(lambda: None)

    @contextmanager
    def write(self, **options):
        happens, self.meanwhile = self.meanwhile, lambda: None
        happens()
        with super().write(**options) as tx:
            self.is_writing = True
            try:
                yield tx
            finally:
                self.is_writing = False


@pytest.fixture
def watched(empty_url):
    """A watched database with encrypted keys: one active, one next, one retired."""
    with WatchedDatabase(empty_url) as store:
        ensure_signing_key(store, "ES256", (OLD,), lambda: NOW - timedelta(days=2))
        key_admin(store, lambda: NOW - timedelta(days=1), OLD).rotate("admin-cli", HERE)
        yield store


@pytest.fixture
def slow_steps(watched, monkeypatch):
    """Each key generation, encryption and decryption, with whether a write transaction was open."""
    steps = []

    def noted(name):
        function = getattr(signing_key, name)
        return lambda *given: steps.append((name, watched.is_writing)) or function(*given)

    for name in ("generate", "to_pem", "from_pem"):
        monkeypatch.setattr(signing_key, name, noted(name))
    return steps


def revoke(status):
    """Return a function that revokes the key with this status."""
    return lambda store: key_admin(store, Clock(NOW), OLD).revoke(
        "admin-cli", by_status(store)[status][0], HERE
    )


CHANGES = {
    "rotate": (lambda store: key_admin(store, Clock(NOW), OLD).rotate("admin-cli", HERE), 1),
    "rotate if older": (
        lambda store: key_admin(store, Clock(NOW), OLD).rotate_if_older("admin-cli", timedelta(days=1), HERE),
        1,
    ),
    "revoke the active key": (revoke(KeyStatus.ACTIVE), 1),
    "revoke the next key": (revoke(KeyStatus.NEXT), 1),
    "revoke a retired key": (revoke(KeyStatus.RETIRED), 0),
    "rewrap": (lambda store: key_admin(store, Clock(NOW), NEW, OLD).rewrap("admin-cli", HERE), 0),
    "start": (lambda store: ensure_signing_key(store, "ES256", (OLD,), Clock(NOW)), 0),
    "start with another algorithm": (lambda store: ensure_signing_key(store, "EdDSA", (OLD,), Clock(NOW)), 2),
}
"""Each change to the keys, and how many keys it creates."""


@pytest.mark.parametrize("change", CHANGES)
def test_no_exchange_waits_for_a_key_to_be_opened_or_made(watched, slow_steps, change):
    """Slow key operations run before the write transaction, because exchanges wait while it is open."""
    act, made = CHANGES[change]

    act(watched)

    steps = [name for name, _ in slow_steps]
    assert (steps.count("generate"), steps.count("from_pem") >= 3) == (made, True)
    assert [name for name, was_writing in slow_steps if was_writing] == []


@pytest.mark.parametrize("change", ["rotate", "rotate if older", "revoke the active key", "start"])
def test_a_key_that_is_replaced_meanwhile_is_not_trusted(watched, change):
    """Decrypting a key before the transaction does not vouch for one planted under its kid since then."""
    (ours,) = by_status(watched)[KeyStatus.NEXT]
    planted = signing_key.to_pem(signing_key.generate("ES256"), ())

    def plant():
        with Database.write(watched) as tx:
            tx.signing_keys.set_pem(ours, planted)

    act, _ = CHANGES[change]
    before = by_status(watched)
    watched.meanwhile = plant

    with pytest.raises(UnreadableKey, match=f"{ours}: it is stored unencrypted"):
        act(watched)
    assert by_status(watched) == before


def test_an_algorithm_that_changes_meanwhile_decides_on_the_new_key(watched):
    """A key created for the old algorithm is not published if a start changes the algorithm meanwhile."""
    watched.meanwhile = lambda: ensure_signing_key(watched, "EdDSA", (OLD,), Clock(NOW))

    CHANGES["rotate"][0](watched)

    with watched.read() as tx:
        algs = {key.status: key.alg for key in tx.signing_keys.all()}
    assert (algs[KeyStatus.ACTIVE], algs[KeyStatus.NEXT]) == ("EdDSA", "EdDSA")


def test_a_rotation_elsewhere_meanwhile_is_seen(watched):
    """If two timers rotate at the same time, the second changes nothing, although it has prepared a key."""
    watched.meanwhile = lambda: CHANGES["rotate"][0](watched)

    assert CHANGES["rotate if older"][0](watched) is None
    assert [len(kids) for kids in by_status(watched).values()] == [1, 1, 2]


def test_a_key_is_as_old_as_its_publication(watched):
    """A key's age counts from its publication, not from before the wait for the write transaction."""
    clock = Clock(NOW)
    admin = key_admin(watched, clock, OLD)
    watched.meanwhile = lambda: clock.advance(20)

    admin.rotate("admin-cli", HERE)

    assert max(key.created_at for key in admin.all()) == NOW + timedelta(seconds=20)
