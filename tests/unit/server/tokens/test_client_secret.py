"""Client secrets."""

import re
from uuid import UUID

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from server.tokens import client_secret

CREDENTIAL = UUID("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
NAMING = r"sk_live_3f2504e04f8941d39a0c0305e82c3301[0-9a-f]{64}"


@pytest.mark.parametrize(("credential", "form"), [(None, r"sk_live_[0-9a-f]{64}"), (CREDENTIAL, NAMING)])
def test_a_secret_matches_its_hash_only(credential, form):
    """The stored hash accepts the secret, tells nothing of it, and is another one each time."""
    secret = client_secret.generate(credential)
    assert re.fullmatch(form, secret)
    stored = client_secret.fingerprint(secret)
    assert secret not in stored
    assert stored != client_secret.fingerprint(secret)
    assert client_secret.matches(stored, secret)
    assert not client_secret.matches(stored, client_secret.generate(credential))
    assert not client_secret.matches("no hash", secret)


@pytest.mark.parametrize(
    ("secret", "credential"),
    [
        ("sk_live_3f2504e04f8941d39a0c0305e82c3301" + "0" * 64, CREDENTIAL),
        ("sk_live_3f2504e04f8941d39a0c0305e82c3301" + "0" * 63, None),
        ("sk_live_3f2504e04f8941d39a0c0305e82c3301" + "0" * 65, None),
        ("sk_live_3F2504E04F8941D39A0C0305E82C3301" + "0" * 64, None),
        ("sk_test_3f2504e04f8941d39a0c0305e82c3301" + "0" * 64, None),
        ("sk_live_3f2504e04f8941d39a0c0305e82c3301" + "0" * 64 + "\n", None),
        ("sk_live_3f2504e04f8941d39a0c0305e82c3301" + "\u0661" * 64, None),
        ("sk_live_" + "0" * 64, None),
        ("", None),
    ],
)
def test_a_secret_names_its_credential(secret, credential):
    """Only the exact form names one."""
    assert client_secret.credential_id(secret) == credential


def test_hashes_of_earlier_versions_are_told_apart():
    """What they stored is nameless; so is an admin client's. What is no hash is neither."""
    earlier = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
    secret = client_secret.generate(CREDENTIAL)

    assert client_secret.is_nameless(earlier.hash("sk_live_" + "0" * 64))
    assert client_secret.is_nameless(client_secret.fingerprint(client_secret.generate()))
    assert not client_secret.is_nameless(client_secret.fingerprint(secret))
    assert not client_secret.is_nameless("no hash")
    # A replica of the earlier version still takes a secret of this one.
    assert earlier.verify(client_secret.fingerprint(secret), secret)


@pytest.mark.parametrize("credential", [None, CREDENTIAL])
def test_every_hash_costs_the_same(credential):
    """That of a secret with a name, without one, and the decoy."""
    for stored in (client_secret.fingerprint(client_secret.generate(credential)), client_secret.decoy()):
        cost = extract_parameters(stored)
        assert (cost.type, cost.version, cost.hash_len) == (Type.ID, 19, 32)
        assert (cost.memory_cost, cost.time_cost, cost.parallelism) == (19_456, 2, 1)


def test_the_decoy_matches_nothing():
    """Where there is no client a hash is checked all the same, and it is always the same one."""
    assert client_secret.decoy() == client_secret.decoy()
    assert not client_secret.matches(client_secret.decoy(), client_secret.generate())
