"""Hostile and malformed ID tokens: each is refused with the first reason that applies."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from kit.github import OneKey
from kit.hostile_tokens import (
    AUDIENCE,
    CLAIMS,
    HEADER,
    ISSUER,
    MALFORMED_PARTS,
    MALFORMED_TEXT,
    NOW,
    OTHER_REASONS,
    TIMES,
)
from sentryagent_idp.domain.identity import CLAIM_PREFIXES, WorkflowIdentity
from sentryagent_idp.errors import InvalidOidcToken
from sentryagent_idp.github import id_token
from sentryagent_idp.tokens import access_token
from sentryagent_idp.tokens.access_token import AccessTokenClaims

KID = HEADER["kid"]


def _verify(token, keys, now=NOW):
    return id_token.verify(token, issuers={ISSUER: keys}, audience=AUDIENCE, now=now, max_age_seconds=600)


@pytest.fixture
def verify(issuer_keys):
    return lambda token, now=NOW: _verify(token, issuer_keys, now)


@pytest.fixture
def reason(verify):
    def run(token, now=NOW):
        with pytest.raises(InvalidOidcToken) as caught:
            verify(token, now)
        return caught.value.reason

    return run


def test_a_token_as_github_sends_it(verify, mint):
    """A genuine token yields its claims, and the identity has their values."""
    claims = verify(mint())
    assert dict(claims) == CLAIMS
    identity = WorkflowIdentity.from_claims(claims)
    assert identity.issuer == ISSUER
    assert {name: getattr(identity, name) for name in ("repository", "ref", "sha", "environment")} == {
        "repository": "acme/api",
        "ref": "refs/heads/main",
        "sha": "a" * 40,
        "environment": None,
    }


ACCEPTED = [
    # header changes, claim changes: variations seen in GitHub's own tokens
    ({"typ": ...}, {}),
    ({"x5t": ...}, {}),
    ({"kid": KID, "extra": [1, {"a": "b"}]}, {}),
    ({}, {"new_claim_of_2027": {"nested": ["x", 1, None, True]}}),
    ({}, {"ref": ""}),
    ({}, {"ref_type": ...}),
    ({}, {"environment": "Production: EU \u00fc"}),
    ({}, {"environment": ""}),
    ({}, {"workflow": "\U0001f680" * 256}),
    ({}, {"sub": "repo:acme/api:job_workflow_ref:" + "x" * 1500}),
    ({}, {"sub": "repo:acme@7/api@101:ref:refs/heads/main"}),
    ({}, {"enterprise": "acme", "enterprise_id": "3", "repo_property_team": "a,b"}),
    ({}, {"exp": NOW + 21_600}),
    ({}, {"nbf": NOW - 600}),
    ({}, {f"claim_{number}": "x" for number in range(60)}),
    # Claims that are not compared are limited only by the size of the token.
    ({}, {f"repo_property_{number}": "x" * 20 for number in range(200)}),
    ({}, {"repo_property_regions": "x" * 9000}),
    ({}, {"list": [1] * 1000}),
    ({}, {"workflow": "x" * 9000}),
    ({}, {"sub": "repo:acme/api:repo_property_regions:" + "x" * 9000}),
]


@pytest.mark.parametrize(("header", "claims"), ACCEPTED)
def test_what_github_may_send(header, claims, verify, mint):
    """Unknown claims, missing optional claims and long texts are accepted (GitHub adds claims every year)."""
    assert verify(mint(header, claims))["repository"] == "acme/api"


@pytest.mark.parametrize(("attack", "edit"), MALFORMED_TEXT, ids=[row[0] for row in MALFORMED_TEXT])
def test_malformed_text(attack, edit, reason, mint, issuer_keys):
    """A text that is not a compact JWS is refused before any key is looked up."""
    assert reason(edit(mint())) == "malformed"
    assert issuer_keys.asked == 0


@pytest.mark.parametrize(
    ("attack", "header", "claims"),
    MALFORMED_PARTS,
    ids=[row[0] for row in MALFORMED_PARTS],
)
def test_malformed_parts(attack, header, claims, reason, mint, issuer_keys):
    """A part that two parsers could read differently is refused, although it is signed."""
    assert reason(mint(header, claims)) == "malformed"
    assert issuer_keys.asked == 0


@pytest.mark.parametrize(
    ("attack", "header", "claims", "expected"),
    OTHER_REASONS,
    ids=[row[0] for row in OTHER_REASONS],
)
def test_reason(attack, header, claims, expected, reason, mint):
    """A well-formed token with a wrong type, source or purpose is refused for exactly that reason."""
    assert reason(mint(header, claims)) == expected


@pytest.mark.parametrize(("offsets", "expected"), TIMES)
def test_times_to_the_second(offsets, expected, verify, reason, mint):
    """Each time limit is exact to the second (B12, B27)."""
    token = mint(claims={name: NOW + offset for name, offset in offsets.items()})
    if expected is None:
        assert verify(token)["jti"]
    else:
        assert reason(token) == expected


def test_times_at_the_ends_of_their_range(verify, reason, mint):
    """The extremes are well-formed: zero is long past, and 90 s before the end of the year 9999 is far ahead."""
    assert reason(mint(claims={"exp": 0})) == "expired"
    assert reason(mint(claims={"iat": 0})) == "too_old"
    assert verify(mint(claims={"exp": 253402300709}))["exp"] == 253402300709


ORDER = [
    # Each fault occurs together with all later ones, and still determines the reason.
    ("malformed", {"crit": []}, {}),
    ("wrong_type", {"typ": "at+jwt"}, {}),
    ("algorithm_not_allowed", {"alg": "none"}, {}),
    ("wrong_issuer", {"kid": "unknown"}, {"iss": "https://evil.example"}),
    ("unknown_key", {"kid": "unknown"}, {}),
    ("bad_signature", {}, {}),
    ("missing_claim", {}, {"jti": ...}),
    ("wrong_audience", {}, {"aud": "x"}),
    ("expired", {}, {"exp": NOW - 100}),
    ("not_yet_valid", {}, {"nbf": NOW + 100}),
    ("too_old", {}, {"iat": NOW - 1000}),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_failing_check_names_the_reason(first, reason, mint, issuer_key, stranger_key):
    """If several checks fail, the order of the checks in docs/errors.md determines the reason."""
    expected = ORDER[first][0]
    header, claims = {}, {}
    for _, header_fault, claims_fault in ORDER[first:]:
        header = {**header_fault, **header}
        claims = {**claims_fault, **claims}
    has_bad_signature = first <= [row[0] for row in ORDER].index("bad_signature")
    token = mint(header, claims, key=stranger_key if has_bad_signature else issuer_key)
    assert reason(token) == expected


def test_bad_signature(reason, mint, stranger_key, issuer_key):
    """A stranger's key, a replaced payload and a cut signature all give a bad signature (B1)."""
    genuine = mint()
    header, payload, signature = genuine.split(".")
    other = mint(claims={"repository": "acme/other"}).split(".")
    assert reason(mint(key=stranger_key)) == "bad_signature"
    assert reason(f"{header}.{other[1]}.{signature}") == "bad_signature"
    assert reason(f"{header}.{payload}.{signature[:-2]}") == "bad_signature"
    assert reason(f"{header}.{payload}.AAAA") == "bad_signature"
    assert reason(mint(key=issuer_key, alg="RS512")) == "bad_signature"
    assert reason(mint(key=issuer_key, alg="PS256")) == "bad_signature"


def test_public_key_as_a_secret(reason, mint, issuer_key):
    """HMAC with the public key as secret, the classic algorithm confusion, is refused (B1, CVE-2022-29217)."""
    public = issuer_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    token = mint({"alg": "HS256"}, key=public, alg="HS256")
    assert reason(token) == "algorithm_not_allowed"


def test_our_own_access_token(reason, our_keys):
    """Our own access tokens are not accepted as ID tokens (B15)."""
    claims = AccessTokenClaims(
        iss=ISSUER,
        sub="x",
        aud=AUDIENCE,
        client_id="x",
        scope="",
        iat=NOW,
        exp=NOW + 60,
        jti="j",
    )
    assert reason(access_token.issue(our_keys["RS256"], claims)) == "wrong_type"


def test_wrong_audience_says_which_is_expected(verify, mint):
    """The refusal has the expected audience, so that the workflow's author can fix it."""
    with pytest.raises(InvalidOidcToken) as caught:
        verify(mint(claims={"aud": "x"}))
    assert caught.value.details == {"reason": "wrong_audience", "expectedAudience": AUDIENCE}


def test_missing_claim_names_the_claim(verify, mint):
    """The message names the missing claim."""
    with pytest.raises(InvalidOidcToken, match="no claim repository_id") as caught:
        verify(mint(claims={"repository_id": ...}))
    assert caught.value.details == {"reason": "missing_claim"}


def test_no_message_repeats_the_token(mint, verify):
    """No message contains the token's text or its kid (B19).

    Only the issuer is shown, to the sender of the token.
    """
    secret = "S3CR3T-and-long-enough-to-find"
    for header, claims in (
        ({"kid": f"{secret}!"}, {}),
        ({"kid": secret}, {}),
        ({"typ": secret}, {}),
        ({"alg": secret}, {}),
        ({}, {"iss": secret}),
        ({}, {"aud": secret}),
        ({}, b'{"%s":1,"%s":2}' % (secret.encode(), secret.encode())),
    ):
        with pytest.raises(InvalidOidcToken) as caught:
            verify(mint(header, claims))
        shown = {name: value for name, value in caught.value.details.items() if name != "issuer"}
        assert secret not in caught.value.message + json.dumps(shown)


@pytest.mark.parametrize(("part", "canonical"), [("A", "AQgw"), ("AA", "AEIMQUYcgkosw048")])
def test_of_a_part_each_octet_has_one_spelling(part, canonical, mint):
    """Another spelling of the same bytes, with unused bits set in the last character, is refused (B8).

    In base64url the length of an RSA-2048 signature is 2 modulo 4, that of an RSA-4096 signature 3.
    """
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    head = mint().rpartition(".")[0]
    for last in alphabet:
        token = f"{head}.{'A' * 680}{part}{last}"
        if last in canonical:
            assert len(id_token.read(token).signature) == 510 + len(part)
        else:
            with pytest.raises(InvalidOidcToken, match="its signature is not canonical base64url"):
                id_token.read(token)


def test_a_token_of_16_kib_is_the_largest(mint):
    """16,384 characters are accepted, one more is not (B9)."""
    heads = [mint(claims={"padding": "a" * length}).rpartition(".")[0] for length in range(4)]
    # The longest signature with a valid base64 length.
    head = next(it for it in heads if (16_384 - len(it) - 1) % 4 in {0, 3})
    token = f"{head}.{'A' * (16_384 - len(head) - 1)}"

    assert id_token.read(token).kid == KID
    with pytest.raises(InvalidOidcToken, match="longer than 16384 characters"):
        id_token.read(f"{token}A")


OPTIONAL = [
    "ref_type",
    "ref_protected",
    "sha",
    "environment",
    "workflow_ref",
    "workflow_sha",
    "job_workflow_ref",
    "job_workflow_sha",
    "actor_id",
    "runner_environment",
    "repository_visibility",
    "run_id",
    "run_attempt",
    "check_run_id",
]


def test_optional_claims_are_all_there():
    """The optional claims of `WorkflowIdentity`, listed by hand."""
    assert sorted(id_token.OPTIONAL_STRINGS) == sorted(OPTIONAL)


@pytest.mark.parametrize("name", [*id_token.REQUIRED_STRINGS, *OPTIONAL])
def test_claims_that_are_read_are_strings(name, reason, mint):
    """A claim of another type is malformed and is never compared."""
    assert reason(mint(claims={name: 42})) == "malformed"


def test_claims_are_accounted_for():
    """`WorkflowIdentity` reads exactly the claims that are checked."""
    fields = set(WorkflowIdentity.__struct_fields__) - {"issuer", "provider", *CLAIM_PREFIXES}
    checked = {
        *id_token.REQUIRED_STRINGS,
        *id_token.REQUIRED_TIMES,
        *id_token.OPTIONAL_STRINGS,
    }
    assert checked - {"aud", "nbf"} == fields


def test_signed_claims_cannot_be_changed(verify, mint):
    """Verified claims are immutable."""
    with pytest.raises(TypeError):
        verify(mint())["repository"] = "evil/repo"


def test_peers_accept_what_is_refused_here(mint, issuer_key, reason):
    """`jwt.decode` is not used because it accepts duplicate claims, of which the last one wins, and padding."""
    claims = b'{"aud":"x","aud":"https://idp.example","exp":%d}' % (NOW + 10**9)
    token = mint(claims=claims)
    options = {"key": issuer_key.public_key(), "algorithms": ["RS256"], "audience": "https://idp.example"}
    assert jwt.decode(token, **options)["aud"] == "https://idp.example"
    assert jwt.decode(f"{token}==", **options)
    assert reason(token) == reason(f"{token}==") == "malformed"


# Properties


@given(data=st.data())
def test_no_changed_byte_gets_in(data, mint, issuer_key):
    """A genuine token with one character replaced, removed or added is refused."""
    token = mint()
    index = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from("ABab09-_.=+/ \n\x00\u0410"))
    edited = data.draw(
        st.sampled_from(
            [
                token[:index] + character + token[index + 1 :],
                token[:index] + token[index + 1 :],
                token[:index] + character + token[index:],
            ]
        )
    )
    if edited == token:
        return
    with pytest.raises(InvalidOidcToken):
        _verify(edited, OneKey(issuer_key.public_key()))


@given(
    st.text()
    | st.text('AZaz09-_.={}"[]', max_size=200)
    | st.binary().map(lambda octets: octets.decode("latin-1"))
)
def test_no_text_is_an_error_of_ours(issuer_key, text):
    """Any text is refused as an invalid token, and never causes another exception."""
    with pytest.raises(InvalidOidcToken):
        _verify(text, OneKey(issuer_key.public_key()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    header=st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "x5t"]), JSON),
    claims=st.dictionaries(
        st.sampled_from(["iss", "aud", "exp", "iat", "sub", "ref", "environment"]), JSON, min_size=1
    ),
)
def test_no_json_is_an_error_of_ours(header, claims, mint, issuer_key):
    """Any JSON in any field is accepted or refused, and never causes another exception (B10, B12)."""
    try:
        verified = _verify(mint(header, claims), OneKey(issuer_key.public_key()))
    except InvalidOidcToken:
        return
    assert verified["iss"] == ISSUER
    assert verified["aud"] == AUDIENCE


def test_read_does_not_verify(mint, stranger_key):
    """`read` returns the parts of a token without verifying its signature."""
    token = mint({"alg": "none"}, key=stranger_key)
    parts = id_token.read(token)
    assert (parts.kid, parts.alg, parts.typ) == (KID, "none", "JWT")
    assert parts.signing_input.decode() == token.rpartition(".")[0]
    assert base64.urlsafe_b64encode(parts.signature).rstrip(b"=").decode() == token.rpartition(".")[2]
