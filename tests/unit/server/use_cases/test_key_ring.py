"""The cached signing keys of a process, and changes of those in the database."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Barrier, Event
from types import SimpleNamespace

import pytest

from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.errors import DatabaseUnavailable
from sentryagent_idp.tokens import signing_key
from sentryagent_idp.tokens.signing_key import UnreadableKey
from sentryagent_idp.use_cases.key_ring import KeyRing
from sentryagent_idp.use_cases.signing_keys import opened

NOW = datetime(2026, 11, 24, tzinfo=UTC)
THREADS = 8


class Keys:
    """The part of `sentryagent_idp.ports.SigningKeys` that the ring needs; counts its full reads."""

    def __init__(self, version, *stored):
        self._version = version
        self._stored = stored
        self.reads = 0

    def version(self):
        return self._version

    def all(self):
        self.reads += 1
        return self._stored


@pytest.fixture
def make_key():
    def make(status=KeyStatus.ACTIVE):
        key = signing_key.generate("ES256")
        return StoredKey(key.kid, key.alg, signing_key.to_pem(key, ()), status, NOW)

    return make


def current(ring, keys):
    return ring.current(SimpleNamespace(signing_keys=keys))


def test_a_new_version_is_read_once_whatever_the_number_of_threads(make_key):
    """All threads see a rotation at the same time, but only one reads the keys: an RSA key takes 36 ms."""
    ring = KeyRing(())
    current(ring, Keys(1, make_key()))
    all_at_once = Barrier(THREADS)

    class Changed(Keys):
        def version(self):
            all_at_once.wait(10)
            return super().version()

        def all(self):
            Event().wait(0.05)  # let the other threads arrive meanwhile
            return super().all()

    changed = Changed(2, make_key())
    with ThreadPoolExecutor(THREADS) as pool:
        sets = list(pool.map(lambda _: current(ring, changed), range(THREADS)))

    assert changed.reads == 1
    assert [it.version for it in sets] == [2] * THREADS


def test_a_key_that_is_known_is_not_read_again(make_key, monkeypatch):
    """A known kid is not parsed again, because the kid is the key's thumbprint; removed keys are forgotten."""
    old, new, gone = make_key(), make_key(), make_key(KeyStatus.RETIRED)
    ring = KeyRing(())
    before = current(ring, Keys(1, gone, old))
    read = []
    monkeypatch.setattr(
        "sentryagent_idp.use_cases.signing_keys.opened",
        lambda stored, passphrases: read.append(stored.private_pem) or opened(stored, passphrases),
    )

    after = current(ring, Keys(2, replace(old, status=KeyStatus.RETIRED), new))

    assert read == [new.private_pem]
    assert after.active.kid == new.kid
    assert after.by_kid.keys() == {old.kid, new.kid}
    assert after.by_kid[old.kid] is before.by_kid[old.kid]


def test_keys_of_which_none_signs_are_not_held(make_key):
    """If no key can sign, the previous keys stay cached, and the next request reads the keys again."""
    ring = KeyRing(())
    before = current(ring, Keys(1, make_key()))
    keys = Keys(2, make_key(KeyStatus.RETIRED))

    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="no signing key"):
            current(ring, keys)

    assert keys.reads == 2
    assert ring.cached is before


def test_a_key_that_cannot_be_read_is_told_once_and_left_out(make_key):
    """An unreadable key is logged once and skipped; it is tried again only when its row changes."""
    good, bad = make_key(), replace(make_key(), private_pem=b"x")
    told = []
    ring = KeyRing((), told.append)

    for version in range(1, 4):
        assert current(ring, Keys(version, good, bad)).by_kid.keys() == {good.kid}
    assert len(told) == 1
    assert bad.kid in str(told[0])

    assert current(ring, Keys(4, good, replace(bad, private_pem=b"y"))).active.kid == good.kid
    assert len(told) == 2


def test_without_a_key_that_can_be_read_nothing_is_signed(make_key):
    """Without a usable key the provider is unavailable, which is not the fault of the request."""
    told = []
    ring = KeyRing((), told.append)
    keys = Keys(1, replace(make_key(), private_pem=b"x"))

    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="no signing key that it can use"):
            current(ring, keys)
    assert len(told) == 1


def test_the_command_line_stops_at_a_key_that_cannot_be_read(make_key):
    """Without a handler the error of an unreadable key is raised."""
    with pytest.raises(UnreadableKey, match="cannot be read"):
        current(KeyRing(()), Keys(1, make_key(), replace(make_key(), private_pem=b"x")))
