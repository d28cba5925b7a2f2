"""Client secrets."""

import re

from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from sentryagent_idp.tokens import client_secret


def test_a_secret_matches_its_hash_only():
    """A hash matches only its secret, does not contain it, and differs each time."""
    secret = client_secret.generate()
    assert re.fullmatch(r"sk_live_[0-9a-f]{64}", secret)
    stored = client_secret.hash_secret(secret)
    assert secret not in stored
    assert stored != client_secret.hash_secret(secret)
    assert client_secret.matches(stored, secret)
    assert not client_secret.matches(stored, client_secret.generate())
    assert not client_secret.matches("no hash", secret)


def test_a_hash_is_known_by_its_salt():
    """The salt tells which secret a hash can match, without computing a hash."""
    first, second = client_secret.generate(), client_secret.generate()
    stored = client_secret.hash_secret(first)

    assert client_secret.has_digest_of(stored, first)
    assert not client_secret.has_digest_of(stored, second)
    assert not client_secret.has_digest_of(stored, "é")


def test_hashes_of_earlier_versions_are_told_apart():
    """Hashes of earlier versions, and texts that are not hashes, have no digest in their salt."""
    earlier = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
    secret = client_secret.generate()

    assert client_secret.has_digest(client_secret.hash_secret(secret))
    for stored in (earlier.hash(secret), "no hash", "$$$$é$", "$$$$a$"):
        assert not client_secret.has_digest(stored)
        assert not client_secret.has_digest_of(stored, secret)
    # A replica of an earlier version still accepts this version's hashes.
    assert earlier.verify(client_secret.hash_secret(secret), secret)


def test_every_hash_costs_the_same():
    """The hash of a secret and the decoy take the same effort."""
    for stored in (client_secret.hash_secret(client_secret.generate()), client_secret.decoy()):
        cost = extract_parameters(stored)
        assert (cost.type, cost.version, cost.hash_len) == (Type.ID, 19, 32)
        assert (cost.memory_cost, cost.time_cost, cost.parallelism) == (19_456, 2, 1)


def test_the_decoy_matches_nothing():
    """If there is no client, the same decoy hash is always checked, and no secret matches it."""
    assert client_secret.decoy() == client_secret.decoy()
    assert not client_secret.matches(client_secret.decoy(), client_secret.generate())
