import base64
import hashlib
import stat
import uuid

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mock_idp.signing_keys import KeyRing, load_or_make_ring, make_key, save_ring


def test_two_keys_are_published_and_one_has_no_certificate(ring):
    """As in GitHub's key set, one key has no certificate, so that a verifier cannot rely on x5c or x5t."""
    first, second = ring.key_set()["keys"]

    assert list(first) == ["kty", "alg", "use", "kid", "n", "e", "x5c", "x5t"]
    assert list(second) == ["kty", "alg", "use", "kid", "n", "e"]
    assert uuid.UUID(first["kid"]).version == uuid.UUID(second["kid"]).version == 5


def test_the_thumbprint_is_that_of_the_certificate_and_the_certificate_that_of_the_key(ring):
    """`x5t` is the SHA-1 hash of the certificate in `x5c`, which has the published public key."""
    key = ring.key_set()["keys"][0]
    der = base64.b64decode(key["x5c"][0])

    digest = hashlib.sha1(der).digest()
    assert key["x5t"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    public = x509.load_der_x509_certificate(der).public_key()
    assert public == ring.signing.private.public_key() == jwt.PyJWK(key).key


def test_the_header_has_githubs_four_members(ring):
    """The header has the algorithm, key id, type and thumbprint, and nothing else."""
    assert ring.signing.header() == {
        "alg": "RS256",
        "kid": ring.signing.kid,
        "typ": "JWT",
        "x5t": ring.signing.x5t,
    }


def test_secrets_do_not_show_in_a_representation(ring):
    """The `repr` of a key has only its kid."""
    assert repr(ring.signing) == f"SigningKey(kid={ring.signing.kid!r})"


@pytest.mark.parametrize(
    ("publish", "keep_old", "shown"),
    [
        (True, True, ["new", "old", "idle"]),
        (True, False, ["new"]),
        (False, True, ["old", "idle"]),
        (False, False, []),
    ],
)
def test_rotation_signs_with_the_new_key_whatever_is_shown(publish, keep_old, shown):
    """Publishing the new key and keeping the old one are independent options; the new key signs at once."""
    old, idle, new = (make_key(with_certificate=False) for _ in range(3))
    names = {old.kid: "old", idle.kid: "idle", new.kid: "new"}

    rotated = KeyRing(old, (old, idle)).rotated(new, publish=publish, keep_old=keep_old)

    assert rotated.signing is new
    assert [names[key["kid"]] for key in rotated.key_set()["keys"]] == shown


def test_a_ring_is_kept_in_a_file_and_comes_back(tmp_path, ring):
    """A key ring is restored from its file, the signing key first; a key that was hidden is then published."""
    file = tmp_path / "keys.pem"
    hidden = ring.rotated(make_key(with_certificate=False), publish=False, keep_old=True)
    save_ring(file, hidden)

    kept = load_or_make_ring(file)

    assert kept.key_set() == {"keys": [hidden.signing.jwk(), *ring.key_set()["keys"]]}
    assert kept.signing.jwk() == hidden.signing.jwk()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_new_file_of_keys_is_for_this_user_alone(tmp_path):
    """The key file is created at the first start with mode 0600; the second start reads it."""
    first = load_or_make_ring(tmp_path / "keys.pem")

    assert stat.S_IMODE((tmp_path / "keys.pem").stat().st_mode) == 0o600
    assert load_or_make_ring(tmp_path / "keys.pem").key_set() == first.key_set()


def test_a_key_that_github_would_not_have_is_refused(tmp_path):
    """An elliptic-curve key or an RSA key below 2048 bits is refused."""
    for private in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 1024)):
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "keys.pem").write_bytes(pem)
        with pytest.raises(ValueError, match="a key that is not RSA of 2048 bits or more"):
            load_or_make_ring(tmp_path / "keys.pem")
