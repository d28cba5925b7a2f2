"""Client secrets."""

import re

from server.tokens import client_secret


def test_a_secret_matches_its_hash_only():
    """The stored hash accepts the secret, tells nothing of it, and is another one each time."""
    secret = client_secret.generate()
    assert re.fullmatch(r"sk_live_[0-9a-f]{64}", secret)
    stored = client_secret.fingerprint(secret)
    assert secret not in stored
    assert stored != client_secret.fingerprint(secret)
    assert client_secret.matches(stored, secret)
    assert not client_secret.matches(stored, client_secret.generate())
    assert not client_secret.matches("no hash", secret)


def test_the_decoy_matches_nothing():
    """Where there is no client a hash is checked all the same, and it is always the same one."""
    assert client_secret.decoy() == client_secret.decoy()
    assert not client_secret.matches(client_secret.decoy(), client_secret.generate())
