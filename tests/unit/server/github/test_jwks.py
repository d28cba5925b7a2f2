"""Parsing an issuer's documents."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from sentryagent_idp.github import jwks
from sentryagent_idp.github.jwks import UnusableDocument

ISSUER = "https://token.actions.githubusercontent.com"


@pytest.fixture(scope="module")
def jwk(issuer_key):
    """A public key as GitHub publishes it."""
    members = jwt.get_algorithm_by_name("RS256").to_jwk(issuer_key.public_key(), as_dict=True)
    return {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k1", "n": members["n"], "e": members["e"]}


def _set(*keys, **more):
    return json.dumps({"keys": list(keys), **more}).encode()


def test_read_as_github_publishes(jwk, issuer_key):
    """RSA keys for RS256 are read, with or without certificates and `use`; everything else is ignored."""
    bare = {name: value for name, value in jwk.items() if name not in {"alg", "use"}}
    others = [
        {"kty": "EC", "kid": "ec", "crv": "P-256", "x": "AA", "y": "AA"},
        {**jwk, "kid": "enc", "use": "enc"},
        {**jwk, "kid": "rs512", "alg": "RS512"},
        {**jwk, "kid": ["list"]},
        {name: value for name, value in jwk.items() if name != "kid"},
    ]
    keys = jwks.read(_set({**jwk, "x5c": ["A" * 2000], "x5t": "x"}, {**bare, "kid": "k2"}, *others, extra=1))
    assert set(keys) == {"k1", "k2"}
    assert keys["k1"].public_numbers() == issuer_key.public_key().public_numbers()


def _public(bits):
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key().public_numbers()
    octets = numbers.n.to_bytes(bits // 8)
    return {"n": base64.urlsafe_b64encode(octets).rstrip(b"=").decode(), "e": "AQAB"}


def test_short_and_huge_keys_are_passed_over(jwk):
    """A key below 2048 bits is not secure, and one above 8192 only costs time, so both are ignored."""
    short = {**jwk, "kid": "short", **_public(1024)}
    huge = {**jwk, "kid": "huge", "n": base64.urlsafe_b64encode(b"\xff" * 1025).rstrip(b"=").decode()}
    assert set(jwks.read(_set(jwk, short, huge))) == {"k1"}
    with pytest.raises(UnusableDocument, match="no RSA key for RS256"):
        jwks.read(_set(short))


def test_a_private_key_counts_as_its_public_half(jwk):
    """Private fields that were published by mistake are ignored."""
    assert set(jwks.read(_set({**jwk, "d": "AQAB"}))) == {"k1"}


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no list of keys"),
        (b'{"keys":{}}', "no list of keys"),
        (b'{"keys":[1]}', "no list of keys"),
        (b'{"keys":[]}', "no RSA key for RS256"),
        (b'{"keys":[],"keys":[]}', "a field is given more than once"),
        (b'{"keys":' + b"[" * 5000, "nested deeper"),
        (b'{"keys":[{"kid":"\xff"}]}', "not UTF-8"),
    ],
)
def test_broken_sets(document, fault):
    """A malformed key set is refused as a whole (B5)."""
    with pytest.raises(UnusableDocument, match=fault):
        jwks.read(document)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1},
        {"n": None},
        {"n": ""},
        {"n": "A=="},
        {"n": "+/"},
        {"n": "A"},
        {"e": "AA"},
        {"e": "Ag"},
        {"n": "AQ"},
    ],
)
def test_a_damaged_key_spoils_its_set(change, jwk):
    """A malformed RSA key invalidates the whole set."""
    with pytest.raises(UnusableDocument, match="contains an invalid RSA key"):
        jwks.read(_set(jwk, {**jwk, "kid": "k2", **change}))


def test_ambiguous_and_overlong_sets(jwk):
    """A duplicate kid, even on a key of another type, and more than 64 keys are refused."""
    with pytest.raises(UnusableDocument, match="a duplicate kid"):
        jwks.read(_set(jwk, {"kty": "EC", "kid": "k1"}))
    assert len(jwks.read(_set(*({**jwk, "kid": f"k{number}"} for number in range(64))))) == 64
    with pytest.raises(UnusableDocument, match="more than 64 keys"):
        jwks.read(_set(*({**jwk, "kid": f"k{number}"} for number in range(65))))


def test_jwks_uri():
    """GitHub's discovery document has only this endpoint."""
    document = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/.well-known/jwks", "claims_supported": ["sub"] * 40}
    assert jwks.jwks_uri(json.dumps(document).encode(), ISSUER) == f"{ISSUER}/.well-known/jwks"


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"issuer": f"{ISSUER}/", "jwks_uri": "x"}, "names another issuer"),
        ({"issuer": f"{ISSUER}/acme", "jwks_uri": "x"}, "names another issuer"),
        ({"jwks_uri": "x"}, "names another issuer"),
        ({"issuer": ISSUER}, "no jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": 1}, "no jwks_uri"),
    ],
)
def test_unusable_discovery(document, fault):
    """A document of another issuer or without a usable `jwks_uri` is refused (B5)."""
    with pytest.raises(UnusableDocument, match=fault):
        jwks.jwks_uri(json.dumps(document).encode(), ISSUER)
