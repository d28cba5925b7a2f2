import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from mock_idp.claims import id_token_claims
from mock_idp.faults import tokens
from mock_idp.faults.jws import encode_jws
from mock_idp.faults.tokens import TOKEN_FAULTS
from mock_idp.job import Job
from mock_idp.signing_keys import base64url

ISSUER = "http://127.0.0.1:3001"
AUDIENCE = "https://id.example.com"
NOW = 1_000_000
# The tokens have a fixed time in the past.
WITHOUT_TIMES = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}


def _good_claims():
    return id_token_claims(Job(), issuer=ISSUER, audience=AUDIENCE, now=NOW, jti="j")


def _faulty(name, keys):
    fault = TOKEN_FAULTS[name]
    return encode_jws(fault.claims(_good_claims()), fault.header(keys.signing.header(), keys), keys, fault)


def _decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _parts(token):
    header, payload, signature = token.split(".")
    decoded = [base64.urlsafe_b64decode(part + "==") for part in (header, payload)]
    return json.loads(decoded[0]), decoded[1].decode(), signature


@pytest.mark.parametrize("name", TOKEN_FAULTS)
def test_every_token_fault_changes_the_token(name, keys):
    """Every fault of the catalogue changes the token."""
    good = encode_jws(_good_claims(), keys.signing.header(), keys)

    assert _faulty(name, keys) != good


@pytest.mark.parametrize(
    ("name", "iat", "nbf", "exp"),
    [
        ("expired", -3600, -3900, -3300),
        ("not-yet-valid", 3600, 3300, 3900),
        ("too-old", -18000, -18300, 3600),
    ],
)
def test_faults_of_time_shift_the_claims(name, iat, nbf, exp, keys):
    """The times are shifted from now by the documented number of seconds."""
    claims = json.loads(_parts(_faulty(name, keys))[1])

    assert [claims[at] - NOW for at in ("iat", "nbf", "exp")] == [iat, nbf, exp]


@pytest.mark.parametrize(
    ("name", "claim", "value"),
    [
        ("wrong-issuer", "iss", "https://token.actions.example.com"),
        ("issuer-with-slash", "iss", f"{ISSUER}/"),
        ("wrong-audience", "aud", "https://other.example.com"),
        ("audience-array", "aud", [AUDIENCE, "other"]),
        ("text-times", "exp", str(NOW + 300)),
        ("missing-exp", "exp", None),
        ("missing-issuer", "iss", None),
        ("missing-audience", "aud", None),
        ("missing-subject", "sub", None),
        ("missing-jti", "jti", None),
        ("missing-repository", "repository", None),
        ("missing-repository-id", "repository_id", None),
    ],
)
def test_faults_of_a_claim_touch_that_claim_alone(name, claim, value, keys):
    """Only the named claim changes, so a verifier that fails has found exactly this claim."""
    claims = json.loads(_parts(_faulty(name, keys))[1])

    changed = {key for key in _good_claims() if claims.get(key) != _good_claims()[key]}
    assert (claims.get(claim), changed) == (value, {claim})


@pytest.mark.parametrize(
    ("name", "member", "value"),
    [
        ("alg-none", "alg", "none"),
        ("hs256-with-public-key", "alg", "HS256"),
        ("wrong-type", "typ", "at+jwt"),
        ("unknown-kid", "kid", "00000000-0000-5000-8000-000000000000"),
        ("missing-kid", "kid", None),
        ("jku-header", "jku", "https://evil.example.com/jwks"),
        ("crit-header", "crit", ["exp"]),
    ],
)
def test_faults_of_the_header_touch_that_field_alone(name, member, value, keys):
    """Only the named header field changes."""
    header = _parts(_faulty(name, keys))[0]

    assert header.pop(member, None) == value
    good = keys.signing.header()
    good.pop(member, None)
    assert header == good


@pytest.mark.parametrize("name", ["empty-signature", "alg-none"])
def test_unsigned_tokens_have_an_empty_third_part(name, keys):
    """An unsigned token has no signature at all."""
    assert _parts(_faulty(name, keys))[2] == ""


def test_the_confused_token_is_signed_with_the_public_key_as_secret(keys):
    """The token is valid for a verifier that lets it choose the algorithm."""
    token = _faulty("hs256-with-public-key", keys)

    forged = jwt.api_jws._jws_global_obj.get_algorithm_by_name("HS256")
    signing_input, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    assert forged.verify(signing_input.encode(), keys.signing.public_pem(), raw)


def test_a_bad_signature_is_refused_by_an_independent_verifier(keys):
    """One flipped bit makes the signature invalid."""
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(_faulty("bad-signature", keys), keys.signing.private.public_key(), ["RS256"])


def test_a_duplicate_member_stands_in_the_text_of_the_payload(keys):
    """Python's parser keeps the last of the two values, which is not the first repository."""
    payload = _parts(_faulty("duplicate-member", keys))[1]

    assert payload.count('"repository":') == 2
    assert json.loads(payload)["repository"] == "octo-evil/hello-agent"


@pytest.mark.parametrize(
    "name", [name for name in TOKEN_FAULTS if name.startswith(("alg-none", "alg-empty"))]
)
def test_unsigned_tokens_say_so_in_their_header(name, keys):
    """The header names `none`, in some spelling, or no algorithm at all."""
    header = json.loads(_decoded(_faulty(name, keys).split(".")[0]))

    assert header["alg"].strip().lower() in {"none", ""}


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_a_token_with_its_own_key_is_signed_by_it(member, keys):
    """A verifier that trusts the key in the header finds the signature valid."""
    token = _faulty(f"own-{member}", keys)

    header = jwt.get_unverified_header(token)
    assert member in header
    assert header["kid"] == keys.foreign().kid
    jwt.decode(
        token, keys.foreign().private.public_key(), ["RS256"], options=WITHOUT_TIMES, audience=AUDIENCE
    )


def test_a_respelt_signature_has_the_same_bytes(keys):
    """The token's text differs from any text on a list, but a lax decoder reads the same signature."""
    token = _faulty("signature-malleable", keys)
    signing_input, _, signature = token.rpartition(".")

    assert base64url(_decoded(signature)) != signature
    keys.signing.private.public_key().verify(
        _decoded(signature), signing_input.encode(), padding.PKCS1v15(), hashes.SHA256()
    )


def test_a_token_by_another_algorithm_of_the_right_key_verifies(keys):
    """The signature is valid under PS256, so only a list of allowed algorithms refuses it."""
    token = _faulty("alg-ps256", keys)

    jwt.decode(token, keys.signing.private.public_key(), ["PS256"], options=WITHOUT_TIMES, audience=AUDIENCE)


def test_plain_base64_has_characters_that_base64url_lacks(keys):
    """The token always contains `+` or `/`, whatever the signature's bytes are."""
    assert set("+/") & set(_faulty("standard-base64", keys))


@pytest.mark.parametrize(
    "name",
    [name for name in TOKEN_FAULTS if name.startswith(("alg-", "hs256-", "es256-", "foreign-", "own-"))],
)
def test_a_careful_library_refuses_wrong_signatures(name, keys):
    """joserfc, given one algorithm and the published keys, refuses all of them."""
    key_set = KeySet.import_key_set({"keys": [keys.signing.jwk(), keys.idle.jwk()]})

    with pytest.raises((JoseError, ValueError, TypeError, AttributeError)):
        joserfc_jwt.decode(_faulty(name, keys), key_set, algorithms=["RS256"])


def test_every_fault_is_described_and_in_the_catalogue_once():
    """No fault is defined in two groups, and each has a description."""
    groups = [
        value
        for name, value in vars(tokens).items()
        if name.isupper() and name.startswith("_") and isinstance(value, dict)
    ]

    assert sum(map(len, groups)) == len(TOKEN_FAULTS) > 100
    assert all(fault.description for fault in TOKEN_FAULTS.values())
