import base64
import json

import jwt
import pytest

from mock_idp.claims import id_token_claims
from mock_idp.faults.tokens import TOKEN_FAULTS, seal
from mock_idp.job import Job
from mock_idp.signing_keys import compact_json

ISSUER = "http://127.0.0.1:3001"
AUDIENCE = "https://id.example.com"
NOW = 1_000_000


def _good_claims():
    return id_token_claims(Job(), issuer=ISSUER, audience=AUDIENCE, now=NOW, jti="j")


def _faulty(name, keys):
    fault = TOKEN_FAULTS[name]
    return seal(fault.claims(_good_claims()), fault.header(keys.signing.header(), keys), keys, fault)


def _parts(token):
    header, payload, signature = token.split(".")
    decoded = [base64.urlsafe_b64decode(part + "==") for part in (header, payload)]
    return json.loads(decoded[0]), decoded[1].decode(), signature


def test_a_good_token_verifies_elsewhere_and_has_its_members_in_alphabetical_order(keys):
    """PyJWT, which did not make it, accepts it; header and payload are ordered as GitHub's."""
    key = keys.signing
    token = seal(_good_claims(), key.header(), keys)

    options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims = jwt.decode(token, key.private.public_key(), ["RS256"], options, audience=AUDIENCE, issuer=ISSUER)
    assert claims == _good_claims()
    header, payload, _ = _parts(token)
    assert list(header) == ["alg", "kid", "typ", "x5t"]
    assert payload == compact_json(claims)


@pytest.mark.parametrize("name", TOKEN_FAULTS)
def test_every_token_fault_changes_the_token(name, keys):
    """No name of the catalogue is without effect."""
    good = seal(_good_claims(), keys.signing.header(), keys)

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
    """The times are off by the named amount of seconds against now."""
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
    """The rest of the payload stays good, so a verifier that stumbles has found this very claim."""
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
def test_faults_of_the_header_touch_that_member_alone(name, member, value, keys):
    """The other members stay GitHub's."""
    header = _parts(_faulty(name, keys))[0]

    assert header.pop(member, None) == value
    good = keys.signing.header()
    good.pop(member, None)
    assert header == good


@pytest.mark.parametrize("name", ["empty-signature", "alg-none"])
def test_unsigned_tokens_have_an_empty_third_part(name, keys):
    """The signature is missing, not just wrong."""
    assert _parts(_faulty(name, keys))[2] == ""


def test_the_confused_token_is_signed_with_the_public_key_as_secret(keys):
    """A verifier that lets the token choose the algorithm would accept it."""
    token = _faulty("hs256-with-public-key", keys)

    forged = jwt.api_jws._jws_global_obj.get_algorithm_by_name("HS256")
    signing_input, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    assert forged.verify(signing_input.encode(), keys.signing.public_pem(), raw)


def test_a_bad_signature_is_refused_by_an_independent_verifier(keys):
    """One flipped bit is enough."""
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(_faulty("bad-signature", keys), keys.signing.private.public_key(), ["RS256"])


def test_a_duplicate_member_stands_in_the_text_of_the_payload(keys):
    """Python's parser keeps the last of the two, another repository than the first."""
    payload = _parts(_faulty("duplicate-member", keys))[1]

    assert payload.count('"repository":') == 2
    assert json.loads(payload)["repository"] == "octo-evil/hello-agent"
