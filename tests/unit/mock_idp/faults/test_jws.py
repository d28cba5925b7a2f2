import base64
import json

import jwt

from mock_idp.claims import id_token_claims
from mock_idp.faults.jws import encode_jws
from mock_idp.job import Job
from mock_idp.signing_keys import compact_json

ISSUER = "http://127.0.0.1:3001"
AUDIENCE = "https://id.example.com"


def test_a_good_token_verifies_elsewhere_and_has_its_fields_in_alphabetical_order(keys):
    """PyJWT accepts the token, and its header and payload have GitHub's order."""
    key = keys.signing
    good = id_token_claims(Job(), issuer=ISSUER, audience=AUDIENCE, now=1_000_000, jti="j")

    token = encode_jws(good, key.header(), keys)

    options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims = jwt.decode(token, key.private.public_key(), ["RS256"], options, audience=AUDIENCE, issuer=ISSUER)
    assert claims == good
    header, payload = (base64.urlsafe_b64decode(part + "==").decode() for part in token.split(".")[:2])
    assert list(json.loads(header)) == ["alg", "kid", "typ", "x5t"]
    assert payload == compact_json(claims)
