"""Our own access tokens: their content and their verification."""

import json

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentryagent_idp.errors import Unauthorized
from sentryagent_idp.tokens import access_token, signing_key
from sentryagent_idp.tokens.access_token import AccessTokenClaims

NOW = 1_795_521_700
ISSUER = "https://idp.example"
AUDIENCE = "https://api.example"
PROVENANCE = {"provider": "github", "repository": "acme/api", "run_id": "99"}
CLAIMS = AccessTokenClaims(
    iss=ISSUER,
    sub="5b0b1c1e-5d3f-4f0e-9d58-1f6b8f0b7a11",
    aud=AUDIENCE,
    client_id="5b0b1c1e-5d3f-4f0e-9d58-1f6b8f0b7a11",
    scope="agents:read",
    iat=NOW,
    exp=NOW + 3600,
    jti="AAAAAAAAAAAAAAAAAAAAAA",
    provenance=PROVENANCE,
)
PAYLOAD = {
    "iss": ISSUER,
    "sub": CLAIMS.sub,
    "aud": AUDIENCE,
    "client_id": CLAIMS.client_id,
    "scope": "agents:read",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 3600,
    "jti": CLAIMS.jti,
    "provenance": PROVENANCE,
}


@pytest.fixture
def verify(our_keys):
    def run(token, now=NOW):
        keys = {key.kid: key for key in our_keys.values()}
        return access_token.verify(token, issuer=ISSUER, audience=AUDIENCE, keys=keys, now=now)

    return run


@pytest.fixture
def sign(our_keys):
    """Sign a token with one of our keys; `...` removes a field."""

    def run(header=None, claims=None, alg="ES256"):
        key = our_keys[alg]
        headers = {"typ": "at+jwt", "kid": key.kid, **(header or {})}
        payload = {name: value for name, value in {**PAYLOAD, **(claims or {})}.items() if value is not ...}
        return jwt.encode(payload, key.private_key, algorithm=alg, headers=headers)

    return run


@pytest.mark.parametrize("alg", signing_key.ALGORITHMS)
def test_issue(alg, our_keys, verify):
    """A token has exactly the header and the claims of RFC 9068, section 2, and our own claims."""
    key = our_keys[alg]
    token = access_token.issue(key, CLAIMS)
    assert jwt.get_unverified_header(token) == {"alg": alg, "kid": key.kid, "typ": "at+jwt"}
    assert dict(verify(token)) == PAYLOAD


@pytest.mark.parametrize("alg", signing_key.ALGORITHMS)
def test_others_can_verify_with_the_published_key(alg, our_keys):
    """A service that has only the JWKS verifies the token with a standard library."""
    key = our_keys[alg]
    published = jwt.PyJWK(signing_key.public_jwk(key))
    claims = jwt.decode(
        access_token.issue(key, CLAIMS),
        published,
        algorithms=[alg],
        audience=AUDIENCE,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )
    assert claims == PAYLOAD


def test_an_admin_token_has_no_provenance(our_keys, verify):
    """A token that was not issued to a run has no provenance."""
    admin = AccessTokenClaims(
        iss=ISSUER,
        sub="admin-cli",
        aud=AUDIENCE,
        client_id="admin-cli",
        scope="",
        iat=NOW,
        exp=NOW + 1,
        jti="j",
    )
    claims = verify(access_token.issue(our_keys["ES256"], admin))
    assert not {"provenance", "person"} & claims.keys()


def test_a_person_is_in_the_token(our_keys, verify):
    """The person a token was minted for is a claim, which must be a string."""
    token = access_token.issue(our_keys["ES256"], msgspec.structs.replace(CLAIMS, person="alice"))
    assert verify(token)["person"] == "alice"


REFUSED = [
    # fault, header, claims, part of the message
    ("person", {}, {"person": 1}, "person is not a string"),
    ("B15 ID token", {"typ": "JWT"}, {}, "exchange GitHub's ID token"),
    ("B15 no typ", {"typ": ...}, {}, "exchange GitHub's ID token"),
    ("B15 other case", {"typ": "AT+JWT"}, {}, "exchange GitHub's ID token"),
    ("B3 unknown kid", {"kid": "unknown"}, {}, "signing key is unknown"),
    ("B2 jwk", {"jwk": {}}, {}, "header has jwk"),
    ("B13 crit", {"crit": ["exp"]}, {}, "header has crit"),
    ("other issuer", {}, {"iss": "https://idp.example/"}, "from another issuer"),
    ("other audience", {}, {"aud": "https://idp.example"}, "for another service"),
    ("A2 list", {}, {"aud": [AUDIENCE]}, "claim aud is missing or not a string"),
    *[
        (f"no {name}", {}, {name: ...}, f"claim {name} is missing or not a string")
        for name in ("iss", "sub", "aud", "client_id", "scope", "jti")
    ],
    *[
        (f"no {name}", {}, {name: ...}, f"claim {name} is missing or not a whole number")
        for name in ("iat", "nbf", "exp")
    ],
    ("B12 text", {}, {"exp": str(NOW + 60)}, "claim exp is missing or not a whole number"),
    ("B12 bool", {}, {"nbf": True}, "claim nbf is missing or not a whole number"),
    ("B12 fraction", {}, {"exp": NOW + 0.5}, "numbers must be integers"),
    ("scope of a list", {}, {"scope": ["agents:write"]}, "claim scope is missing or not a string"),
    ("provenance of a text", {}, {"provenance": "x"}, "claim provenance is not an object"),
    ("provenance null", {}, {"provenance": None}, "claim provenance is not an object"),
]


@pytest.mark.parametrize(("fault", "header", "claims", "text"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused(fault, header, claims, text, sign, verify):
    """A valid signature is not enough: everything that RFC 9068 requires must be present and right."""
    removed = header.get("typ") is ...
    token = sign({"typ": None} if removed else header, claims)
    with pytest.raises(Unauthorized) as caught:
        verify(token)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("now", "text"), [(NOW - 31, "not valid yet"), (NOW + 3600, "expired"), (NOW + 3601, "expired")]
)
def test_outside_its_time(now, text, sign, verify):
    """A token is too early beyond the allowed clock difference of replicas; `exp` has no leeway."""
    with pytest.raises(Unauthorized, match=text):
        verify(sign(), now)


@pytest.mark.parametrize("now", [NOW - 30, NOW, NOW + 3599])
def test_inside_its_time(now, sign, verify):
    """A token is valid from 30 s before `nbf` to the last second before `exp`."""
    assert verify(sign(), now)["jti"] == CLAIMS.jti


def test_algorithm_is_the_keys(our_keys, verify):
    """A token signed with another algorithm than the key's is refused (B1)."""
    key = our_keys["RS256"]
    token = jwt.encode(PAYLOAD, key.private_key, algorithm="RS512", headers={"typ": "at+jwt", "kid": key.kid})
    with pytest.raises(Unauthorized, match="signature is invalid"):
        verify(token)


def test_header_must_agree_with_the_key(our_keys, verify):
    """A valid signature is refused if the header names another algorithm (RFC 8725, 3.1)."""
    key = our_keys["RS256"]
    header, payload = (
        jwt.utils.base64url_encode(json.dumps(part).encode()).decode()
        for part in ({"alg": "HS256", "typ": "at+jwt", "kid": key.kid}, PAYLOAD)
    )
    signature = jwt.get_algorithm_by_name("RS256").sign(f"{header}.{payload}".encode(), key.private_key)
    with pytest.raises(Unauthorized, match="signature is invalid"):
        verify(f"{header}.{payload}.{jwt.utils.base64url_encode(signature).decode()}")


def test_kid_of_another_key(our_keys, sign, verify):
    """A token signed with another key than its `kid` names is refused, and so is an unknown `kid`."""
    other = signing_key.generate("ES256")
    token = jwt.encode(
        PAYLOAD, other.private_key, algorithm="ES256", headers={"typ": "at+jwt", "kid": our_keys["ES256"].kid}
    )
    with pytest.raises(Unauthorized, match="signature is invalid"):
        verify(token)
    with pytest.raises(Unauthorized, match="signing key is unknown"):
        access_token.verify(sign(), issuer=ISSUER, audience=AUDIENCE, keys={}, now=NOW)


def test_githubs_token_is_no_bearer(mint, verify):
    """GitHub's ID token must be exchanged and is not accepted as a bearer token (B15)."""
    with pytest.raises(Unauthorized, match="POST /api/v1/oidc/token"):
        verify(mint())


@pytest.mark.parametrize("text", ["", "x", "a.b", "a.b.c", "eyJ9.e30.", "\ud800", "x" * 20_000])
def test_no_token_at_all(text, verify):
    """A text that is not a token is refused with a message."""
    with pytest.raises(Unauthorized, match="cannot be read"):
        verify(text)


@given(data=st.data())
def test_no_changed_byte_gets_in(data, our_keys):
    """Changing any one character makes the token invalid."""
    key = our_keys["EdDSA"]
    token = access_token.issue(key, CLAIMS)
    index = data.draw(st.integers(0, len(token) - 1))
    edited = token[:index] + data.draw(st.sampled_from("ABab09-_.=")) + token[index + 1 :]
    if edited == token:
        return
    with pytest.raises(Unauthorized):
        access_token.verify(edited, issuer=ISSUER, audience=AUDIENCE, keys={key.kid: key}, now=NOW)
