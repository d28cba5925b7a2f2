"""Third-party signatures: Wycheproof's RSASSA-PKCS1-v1_5 tests and the examples of the RFCs."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kit.github import OneKey
from kit.hostile_tokens import AUDIENCE, ISSUER, NOW
from sentryagent_idp.errors import InvalidOidcToken
from sentryagent_idp.github import id_token
from sentryagent_idp.jose.compact_jws import UnverifiedJwt

VECTORS = Path(__file__).parents[3] / "vectors"
WYCHEPROOF = [
    (group, test)
    for group in json.loads((VECTORS / "wycheproof_rs256.json").read_text())["groups"]
    for test in group["tests"]
]
RFC = json.loads((VECTORS / "rfc_tokens.json").read_text())


def _octets(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _key(members):
    numbers = {name: int.from_bytes(_octets(members[name])) for name in ("n", "e")}
    return rsa.RSAPublicNumbers(**numbers).public_key()


def is_accepted(message, signature, key):
    """Whether the product's own check accepts the signature."""
    token = UnverifiedJwt("kid", "RS256", "JWT", {}, message, signature)
    try:
        id_token._check_signature(token, key)
    except InvalidOidcToken:
        return False
    return True


def test_the_vectors_are_all_there():
    """All of Wycheproof's 259 tests are present, with valid and invalid ones."""
    assert len(WYCHEPROOF) == 259
    assert {test["result"] for _, test in WYCHEPROOF} == {"valid", "invalid", "acceptable"}


@pytest.mark.parametrize(
    ("group", "test"), WYCHEPROOF, ids=[f"{test['id']} {test['comment']}" for _, test in WYCHEPROOF]
)
def test_wycheproof(group, test):
    """Signatures with another padding, hash or length are refused, also the legacy form without NULL (B1)."""
    accepted = is_accepted(_octets(test["msg"]), _octets(test["sig"]), _key(group))
    assert accepted is (test["result"] == "valid")


@pytest.mark.parametrize("source", RFC["rs256_keys"])
def test_a_signature_of_the_rfcs_verifies(source):
    """The RS256 examples of RFC 7515 and RFC 7520 verify with their own keys only."""
    signing_input, _, signature = RFC["tokens"][source].rpartition(".")
    for other, members in RFC["rs256_keys"].items():
        accepted = is_accepted(signing_input.encode(), _octets(signature), _key(members))
        assert accepted is (other == source)


@pytest.mark.parametrize(("source", "token"), RFC["tokens"].items(), ids=RFC["tokens"])
def test_a_token_of_the_rfcs_is_none_of_githubs(source, token):
    """No example of the RFCs (signed, MACed, encrypted, unsigned, with `crit`) has the form of GitHub's tokens."""
    with pytest.raises(InvalidOidcToken) as caught:
        id_token.verify(
            token,
            issuers={ISSUER: OneKey(_key(RFC["rs256_keys"]["RFC 7515 A.2"]))},
            audience=AUDIENCE,
            now=NOW,
            max_age_seconds=600,
        )
    assert caught.value.reason == "malformed"
