"""Keys, and a mint that signs whatever it is given, right or wrong."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from server.errors import InvalidOidcToken
from server.tokens import signing_keys

NOW = 1_795_521_700
ISSUER = "https://token.actions.githubusercontent.com"
AUDIENCE = "https://idp.example"
HEADER = {
    "alg": "RS256",
    "kid": "38826b17-6a30-5f9b-b169-8beb8202f723",
    "typ": "JWT",
    "x5t": "ykNaY4qM_ta4k2TgZOCEYLkcYlA",
}
CLAIMS = {
    "actor": "octocat",
    "actor_id": "42",
    "aud": AUDIENCE,
    "base_ref": "",
    "check_run_id": "5",
    "event_name": "push",
    "exp": NOW + 300,
    "head_ref": "",
    "iat": NOW,
    "iss": ISSUER,
    "job_workflow_ref": "acme/api/.github/workflows/ci.yml@refs/heads/main",
    "job_workflow_sha": "a" * 40,
    "jti": "0f1c2a36-96e2-4f35-9f3c-3a4d5f6b7c8d",
    "nbf": NOW - 300,
    "ref": "refs/heads/main",
    "ref_protected": "true",
    "ref_type": "branch",
    "repository": "acme/api",
    "repository_id": "101",
    "repository_owner": "acme",
    "repository_owner_id": "7",
    "repository_visibility": "private",
    "run_attempt": "1",
    "run_id": "99",
    "run_number": "3",
    "runner_environment": "github-hosted",
    "sha": "a" * 40,
    "sub": "repo:acme/api:ref:refs/heads/main",
    "workflow": "CI \u2014 build",
    "workflow_ref": "acme/api/.github/workflows/ci.yml@refs/heads/main",
    "workflow_sha": "a" * 40,
}


def _base64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


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
    return {"header": HEADER, "claims": CLAIMS, "now": NOW, "issuer": ISSUER, "audience": AUDIENCE}


@pytest.fixture(scope="session")
def mint(issuer_key):
    """Sign a token; `header` and `claims` change the usual ones (`...` removes one), or are the bytes themselves."""

    def part(usual, changes):
        if isinstance(changes, bytes):
            return changes
        members = {**usual, **changes}
        return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()

    def make(header=None, claims=None, *, key=issuer_key, alg="RS256"):
        parts = (part(HEADER, header or {}), part(CLAIMS, claims or {}))
        signing_input = ".".join(map(_base64url, parts)).encode()
        signature = jwt.get_algorithm_by_name(alg).sign(signing_input, key)
        return f"{signing_input.decode()}.{_base64url(signature)}"

    return make


@pytest.fixture(scope="session")
def our_keys():
    """A signing key of ours for each algorithm."""
    return {alg: signing_keys.generate(alg) for alg in signing_keys.ALGORITHMS}
