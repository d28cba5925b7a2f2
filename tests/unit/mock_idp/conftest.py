"""One key ring for the whole session, because generating RSA keys is slow."""

import pytest

from mock_idp.faults.jws import Keys
from mock_idp.http.app import create_app
from mock_idp.issuer import Clock, Issuer
from mock_idp.signing_keys import make_key, make_ring

NOW = 1_790_000_000


@pytest.fixture(scope="session")
def ring():
    return make_ring()


@pytest.fixture(scope="session")
def foreign_key():
    """An attacker's key."""
    return make_key()


@pytest.fixture(scope="session")
def keys(ring, foreign_key):
    """The keys that tokens are signed with."""
    return Keys(
        ring.signing, ring.published[1], lambda: foreign_key, "http://127.0.0.1:3001/_mock/foreign-keys"
    )


@pytest.fixture
def now():
    """The fixed time of the machine's clock, in seconds since the epoch."""
    return NOW


@pytest.fixture
def make_issuer(ring):
    """Make an issuer with the session's keys and a stopped machine clock."""

    def make(url="http://127.0.0.1:3001"):
        return Issuer(url, Clock(real=lambda: NOW), ring)

    return make


@pytest.fixture
def issuer(make_issuer):
    return make_issuer()


@pytest.fixture
def slept():
    """The delays, in seconds, that the application requested."""
    return []


@pytest.fixture
def client(issuer, slept):
    return create_app(issuer, slept.append).test_client()
