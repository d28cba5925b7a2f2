"""Signing keys and settings, on both engines."""

from dataclasses import replace
from datetime import timedelta

import pytest

from kit.threads import at_once, writing
from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey


@pytest.fixture
def key(now):
    """An active key."""
    return StoredKey("kid-1", "ES256", b"-----BEGIN\0\xff", KeyStatus.ACTIVE, now)


def test_keys_come_back_as_they_were_stored(database, key, now):
    """Keys are read back equal, oldest first, and their status can change."""
    older = replace(key, kid="kid-0", status=KeyStatus.NEXT, created_at=now - timedelta(microseconds=1))
    with database.write() as tx:
        tx.signing_keys.add(key)
        tx.signing_keys.add(older)
        assert tx.signing_keys.all() == [older, key]
        tx.signing_keys.set_status("kid-1", KeyStatus.RETIRED, retired_at=now)
        tx.signing_keys.set_status("kid-0", KeyStatus.ACTIVE, retired_at=None)
    with database.read() as tx:
        assert tx.signing_keys.all() == [
            replace(older, status=KeyStatus.ACTIVE),
            replace(key, status=KeyStatus.RETIRED, retired_at=now),
        ]


def test_every_change_of_the_keys_changes_their_version(database, other_database, key, now):
    """Adding, retiring, re-encrypting and removing a key change the version, equally on every replica."""
    versions = []

    def note():
        with database.read() as here, other_database.read() as there:
            assert here.signing_keys.version() == there.signing_keys.version()
            versions.append(here.signing_keys.version())

    note()
    for change in (
        lambda keys: keys.add(key),
        lambda keys: keys.add(replace(key, kid="kid-2")),
        lambda keys: keys.set_status("kid-1", KeyStatus.RETIRED, retired_at=now),
        lambda keys: keys.set_status("kid-1", KeyStatus.RETIRED, retired_at=now + timedelta(seconds=1)),
        lambda keys: keys.set_pem("kid-1", b"-----BEGIN\0\xfe"),
        lambda keys: keys.remove("kid-1"),
    ):
        with database.write() as tx:
            change(tx.signing_keys)
        note()
    assert len(set(versions)) == 7


def test_a_removed_key_is_gone(database, key):
    """Removing a key leaves the others."""
    other = replace(key, kid="kid-2")
    with database.write() as tx:
        tx.signing_keys.add(key)
        tx.signing_keys.add(other)
        tx.signing_keys.remove("kid-1")
        assert tx.signing_keys.all() == [other]


@pytest.mark.parametrize("value", ["http://127.0.0.1:3000", 1, 1.5, True, None, [], {"a": [None, "ü\0"]}])
def test_a_fact_is_any_json_value(database, value):
    """A setting is read back equal; a second put replaces it; an unknown name gives `None`."""
    with database.write() as tx:
        assert tx.settings.get("issuer") is None
        tx.settings.put("issuer", "old")
        tx.settings.put("issuer", value)
    with database.read() as tx:
        assert tx.settings.get("issuer") == value
        assert tx.settings.get("Issuer") is None


def test_a_fact_that_is_put_at_once_has_one_of_the_values(database, other_database):
    """Concurrent puts of a new setting on two replicas all succeed."""
    calls = [
        writing(it, lambda tx, number=number: tx.settings.put("issuer", number))
        for number, it in enumerate((database, other_database) * 4)
    ]

    assert at_once(*calls) == [None] * 8
    with database.read() as tx:
        assert tx.settings.get("issuer") in range(8)
