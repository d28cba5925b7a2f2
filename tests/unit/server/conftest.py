"""Keys, and a mint that signs any header and claims, valid or not."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kit import hostile_tokens
from kit.github import GithubKeys
from kit.hostile_tokens import HEADER
from sentryagent_idp.tokens import signing_key


@pytest.fixture(scope="session")
def issuer_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def stranger_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def issuer_keys(issuer_key):
    """The issuer's keys, with one published key."""
    return GithubKeys(lambda: {HEADER["kid"]: issuer_key.public_key()})


@pytest.fixture(scope="session")
def mint(issuer_key):
    """Sign a token, by default with the published key; see `mint` in `kit.hostile_tokens`."""

    def make(header=None, claims=None, *, key=issuer_key, alg="RS256"):
        return hostile_tokens.mint(key, header, claims, alg=alg)

    return make


@pytest.fixture(scope="session")
def our_keys():
    """One of our signing keys for each algorithm."""
    return {alg: signing_key.generate(alg) for alg in signing_key.ALGORITHMS}
