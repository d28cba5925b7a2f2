"""The signing keys of our own tokens."""

import hashlib
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from sentryagent_idp.tokens import signing_key
from sentryagent_idp.tokens.signing_key import SigningKey, UnreadableKey

PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k", "key_ops"}
TYPES = {
    "ES256": ec.EllipticCurvePrivateKey,
    "RS256": rsa.RSAPrivateKey,
    "EdDSA": ed25519.Ed25519PrivateKey,
}


@pytest.mark.parametrize("alg", signing_key.ALGORITHMS)
def test_generate(alg, our_keys):
    """A key has the type of its algorithm."""
    key = our_keys[alg]
    assert key.alg == alg
    assert isinstance(key.private_key, TYPES[alg])
    assert getattr(key.private_key, "key_size", 256) in {256, 2048}


def test_unknown_algorithm():
    """Symmetric and unknown algorithms are refused."""
    with pytest.raises(ValueError, match="choose one of ES256, RS256, EdDSA"):
        signing_key.generate("HS256")


def test_thumbprint_of_the_standard():
    """The example of RFC 7638, 3.1 gives the thumbprint stated there."""
    example = {
        "kty": "RSA",
        "n": (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n"
            "3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgd"
            "AZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur"
            "-kEgU8awapJzKnqDKgw"
        ),
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    public_key = jwt.PyJWK(example).key
    members = signing_key._public_fields("RS256", public_key)
    assert signing_key._thumbprint(members) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("alg", signing_key.ALGORITHMS)
def test_kid_is_the_thumbprint(alg, our_keys):
    """The kid is the key's thumbprint (RFC 7638), so it is unique and the same everywhere."""
    key = our_keys[alg]
    members = {
        name: value
        for name, value in signing_key.public_jwk(key).items()
        if name not in {"kid", "alg", "use"}
    }
    digest = hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert jwt.utils.base64url_decode(key.kid).hex() == digest
    assert SigningKey.of(key.private_key).kid == key.kid


@pytest.mark.parametrize("alg", signing_key.ALGORITHMS)
def test_nothing_private_is_published(alg, our_keys):
    """A JWK has the public fields, the kid, the algorithm and the use, and nothing else."""
    key = our_keys[alg]
    jwk = signing_key.public_jwk(key)
    assert not PRIVATE_MEMBERS & set(jwk)
    assert (jwk["kid"], jwk["alg"], jwk["use"]) == (key.kid, alg, "sig")
    assert signing_key.jwks([key, key]) == {"keys": [jwk, jwk]}


@pytest.mark.parametrize("alg", signing_key.ALGORITHMS)
def test_nothing_private_is_printed(alg, our_keys):
    """The `repr` of a key has only its kid and algorithm."""
    key = our_keys[alg]
    assert repr(key) == f"SigningKey(kid='{key.kid}', alg='{alg}')"


@pytest.mark.parametrize("alg", signing_key.ALGORITHMS)
@pytest.mark.parametrize("passphrases", [(), ("correct horse \u00fc",), ("current", "previous")])
def test_pem_round_trip(alg, passphrases, our_keys):
    """A stored key is read back equal, encrypted if there is a passphrase."""
    pem = signing_key.to_pem(our_keys[alg], passphrases)
    assert (b"ENCRYPTED" in pem) is (passphrases != ())
    assert signing_key.from_pem(pem, passphrases).kid == our_keys[alg].kid


def test_the_previous_passphrase_only_reads(our_keys):
    """A key is read with either passphrase and stored with the current one."""
    before = signing_key.to_pem(our_keys["ES256"], ("old",))
    assert signing_key.from_pem(before, ("new", "old")).kid == our_keys["ES256"].kid
    after = signing_key.to_pem(our_keys["ES256"], ("new", "old"))
    assert signing_key.from_pem(after, ("new",)).kid == our_keys["ES256"].kid
    with pytest.raises(UnreadableKey, match="check that SENTRYAGENT_KEY_ENCRYPTION_KEY"):
        signing_key.from_pem(after, ("old",))


def test_a_clear_key_is_no_key_under_a_passphrase(our_keys):
    """An attacker who can write to the database cannot add a key without the passphrase, however it is disguised."""
    clear = signing_key.to_pem(our_keys["ES256"], ())
    begin, end = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", b"-----END ENCRYPTED PRIVATE KEY-----\n"
    for pem, text in [
        (clear, "`sentryagent-idp keys rewrap`"),
        (begin + clear, "cannot be read"),
        (begin + end + clear, "cannot be read"),
        (clear + begin + end, "cannot be read"),
        (clear.replace(b"PRIVATE", b"ENCRYPTED PRIVATE"), "cannot be read"),
    ]:
        with pytest.raises(UnreadableKey, match=text):
            signing_key.from_pem(pem, ("current", "previous"))


def _pem(private_key):
    return private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_unreadable_keys(our_keys):
    """The error names the variable to check or the defect of the key."""
    encrypted = signing_key.to_pem(our_keys["ES256"], ("right",))
    faults = [
        (encrypted, (), "set SENTRYAGENT_KEY_ENCRYPTION_KEY"),
        (encrypted, ("wrong", "wrong too"), "check that SENTRYAGENT_KEY_ENCRYPTION_KEY"),
        (b"", (), "cannot be read"),
        (b"-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n", (), "cannot be read"),
        (_pem(ec.generate_private_key(ec.SECP384R1())), (), "not on P-256"),
        (_pem(dsa.generate_private_key(1024)), (), "its algorithm is not one of"),
    ]
    for pem, passphrases, text in faults:
        with pytest.raises(UnreadableKey, match=text):
            signing_key.from_pem(pem, passphrases)
