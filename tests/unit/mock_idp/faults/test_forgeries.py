import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from mock_idp.claims import id_token_claims
from mock_idp.faults.forgeries import FORGERIES
from mock_idp.faults.tokens import TOKEN_FAULTS, seal
from mock_idp.job import Job
from mock_idp.signing_keys import base64url

ISSUER = "http://127.0.0.1:3001"
AUDIENCE = "https://id.example.com"


def _claims():
    return id_token_claims(Job(), issuer=ISSUER, audience=AUDIENCE, now=int(time.time()), jti="j")


def _forged(name, keys):
    fault = FORGERIES[name]
    return seal(fault.claims(_claims()), fault.header(keys.signing.header(), keys), keys, fault)


def _decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.mark.parametrize("name", FORGERIES)
def test_every_forgery_differs_from_a_good_token_in_what_it_names(name, keys):
    """None is a good token by accident: its text, apart from what changes each time, is another one."""
    good = seal(_claims(), keys.signing.header(), keys)

    assert _forged(name, keys) != good


@pytest.mark.parametrize("name", [name for name in FORGERIES if name.startswith(("alg-none-", "alg-empty"))])
def test_unsigned_forgeries_say_so_in_their_header(name, keys):
    """The header names no algorithm that needs a key."""
    header = json.loads(_decoded(_forged(name, keys).split(".")[0]))

    assert header["alg"].strip().lower() in {"none", ""}


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_a_forgery_with_its_own_key_is_signed_by_it(member, keys):
    """A verifier that trusts the header finds nothing wrong with the signature."""
    token = _forged(f"own-{member}", keys)

    header = jwt.get_unverified_header(token)
    assert member in header
    assert header["kid"] == keys.foreign().kid
    jwt.decode(token, keys.foreign().private.public_key(), ["RS256"], audience=AUDIENCE)


def test_a_respelt_signature_has_the_same_bytes(keys):
    """A list of token texts does not know it, a decoder that is not strict reads the same."""
    token = _forged("signature-malleable", keys)
    signing_input, _, signature = token.rpartition(".")

    assert base64url(_decoded(signature)) != signature
    keys.signing.private.public_key().verify(
        _decoded(signature), signing_input.encode(), padding.PKCS1v15(), hashes.SHA256()
    )


def test_a_token_by_another_algorithm_of_the_right_key_verifies(keys):
    """Only a list of the algorithms that the issuer uses refuses it."""
    token = _forged("alg-ps256", keys)

    jwt.decode(token, keys.signing.private.public_key(), ["PS256"], audience=AUDIENCE)


def test_plain_base64_has_characters_that_base64url_lacks(keys):
    """The forgery is one whatever the signature's bytes are."""
    assert set("+/") & set(_forged("standard-base64", keys))


@pytest.mark.parametrize(
    "name", [name for name in FORGERIES if name.startswith(("alg-", "hs256-", "es256-", "foreign-", "own-"))]
)
def test_a_careful_library_refuses_forged_signatures(name, keys):
    """joserfc, told the one algorithm and the published keys, accepts none of them."""
    key_set = KeySet.import_key_set({"keys": [keys.signing.jwk(), keys.idle.jwk()]})

    with pytest.raises((JoseError, ValueError, TypeError, AttributeError)):
        joserfc_jwt.decode(_forged(name, keys), key_set, algorithms=["RS256"])


def test_names_are_unique_and_stories_are_told():
    """A forgery and a fault never share a name; every one says what has to be noticed."""
    assert not FORGERIES.keys() & TOKEN_FAULTS.keys()
    assert all(fault.story for fault in FORGERIES.values())
