import base64
import hashlib
import uuid

import jwt
import pytest
from cryptography import x509

from mock_idp.signing_keys import KeyRing, make_key


def test_two_keys_are_published_and_one_has_no_certificate(ring):
    """As GitHub's set has: a verifier that needs x5c or x5t must notice."""
    first, second = ring.key_set()["keys"]

    assert list(first) == ["kty", "alg", "use", "kid", "n", "e", "x5c", "x5t"]
    assert list(second) == ["kty", "alg", "use", "kid", "n", "e"]
    assert uuid.UUID(first["kid"]).version == uuid.UUID(second["kid"]).version == 5


def test_the_thumbprint_is_that_of_the_certificate_and_the_certificate_that_of_the_key(ring):
    """`x5t` is the SHA-1 of `x5c`, and `x5c` holds the published modulus."""
    key = ring.key_set()["keys"][0]
    der = base64.b64decode(key["x5c"][0])

    digest = hashlib.sha1(der).digest()
    assert key["x5t"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    public = x509.load_der_x509_certificate(der).public_key()
    assert public == ring.signing.private.public_key() == jwt.PyJWK(key).key


def test_the_header_has_githubs_four_members(ring):
    """A token's header names algorithm, key, type and thumbprint, and nothing else."""
    assert ring.signing.header() == {
        "alg": "RS256",
        "kid": ring.signing.kid,
        "typ": "JWT",
        "x5t": ring.signing.x5t,
    }


def test_secrets_do_not_show_in_a_representation(ring):
    """Neither the private key nor the certificate is printed by accident."""
    assert repr(ring.signing) == f"SigningKey(kid={ring.signing.kid!r})"


@pytest.mark.parametrize(
    ("publish", "keep_old", "shown"),
    [
        (True, True, ["new", "old", "idle"]),
        (True, False, ["new", "idle"]),
        (False, True, ["old", "idle"]),
        (False, False, ["idle"]),
    ],
)
def test_rotation_signs_with_the_new_key_whatever_is_shown(publish, keep_old, shown):
    """Whether the set shows the new key or keeps the old one are two separate choices."""
    old, idle, new = (make_key(with_certificate=False) for _ in range(3))
    names = {old.kid: "old", idle.kid: "idle", new.kid: "new"}

    rotated = KeyRing(old, (old, idle)).rotated(new, publish=publish, keep_old=keep_old)

    assert rotated.signing is new
    assert [names[key["kid"]] for key in rotated.key_set()["keys"]] == shown
