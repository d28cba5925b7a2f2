"""Keys, and a mint that signs whatever it is given, right or wrong."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from sentryagent_idp.errors import InvalidOidcToken
from sentryagent_idp.tokens import signing_key

CATALOGUE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "hostile_tokens.py")))
HEADER, CLAIMS = CATALOGUE.HEADER, CATALOGUE.CLAIMS


class IssuerKeysDouble:
    """One published key, and a count of how often it was asked for."""

    def __init__(self, key):
        self.keys = {HEADER["kid"]: key.public_key()}
        self.asked = 0

    def find(self, kid):
        self.asked += 1
        if kid not in self.keys:
            raise InvalidOidcToken("unknown_key", "There is no such key; send a token of the issuer.")
        return self.keys[kid]


@pytest.fixture(scope="session")
def issuer_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def stranger_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def issuer_keys(issuer_key):
    return IssuerKeysDouble(issuer_key)


@pytest.fixture(scope="session")
def github():
    """What a token of GitHub's looks like: its header, its claims, its moment, its issuer and our audience."""
    return {
        "header": HEADER,
        "claims": CLAIMS,
        "now": CATALOGUE.NOW,
        "issuer": CATALOGUE.ISSUER,
        "audience": CATALOGUE.AUDIENCE,
    }


@pytest.fixture(scope="session")
def mint(issuer_key):
    """Sign a token, by default with the published key; see `mint` in `tests/hostile_tokens.py`."""

    def make(header=None, claims=None, *, key=issuer_key, alg="RS256"):
        return CATALOGUE.mint(key, header, claims, alg=alg)

    return make


@pytest.fixture(scope="session")
def our_keys():
    """A signing key of ours for each algorithm."""
    return {alg: signing_key.generate(alg) for alg in signing_key.ALGORITHMS}
