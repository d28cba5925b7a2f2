"""Every token of the catalogue, sent to the real application in both forms of the exchange.

The first tests show that a token without a flaw is accepted, because a provider that refuses all would pass the others.
"""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from kit.hostile_tokens import AUDIENCE, MALFORMED_PARTS, MALFORMED_TEXT, NOW, OTHER_REASONS, TIMES, mint
from kit.provider import GITHUB


def _spliced(genuine, other):
    header, _, signature = genuine.split(".")
    return f"{header}.{other.split('.')[1]}.{signature}"


def _public(key, encoding):
    return key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


SIGNATURES = [
    # attack, token as a function of GitHub's key and a stranger's, reason
    ("B1 a stranger's key", lambda _, stranger: mint(stranger), "bad_signature"),
    (
        "B1 another's payload",
        lambda key, _: _spliced(mint(key), mint(key, None, {"repository": "acme/web"})),
        "bad_signature",
    ),
    ("B1 a cut signature", lambda key, _: mint(key)[:-2], "bad_signature"),
    ("B1 RS512 under the name of RS256", lambda key, _: mint(key, alg="RS512"), "bad_signature"),
    ("B1 PS256 under the name of RS256", lambda key, _: mint(key, alg="PS256"), "bad_signature"),
    (
        "B1/CVE-2022-29217 HMAC with the public key in DER",
        lambda key, _: mint(_public(key, serialization.Encoding.DER), {"alg": "HS256"}, alg="HS256"),
        "algorithm_not_allowed",
    ),
    (
        "B1/CVE-2024-33663 HMAC under the name of RS256",
        lambda key, _: mint(_public(key, serialization.Encoding.DER), alg="HS256"),
        "bad_signature",
    ),
]

RFC_TOKENS = json.loads((Path(__file__).parents[2] / "vectors" / "rfc_tokens.json").read_text())["tokens"]

HOSTILE = [
    *[(row[0], lambda key, _, edit=row[1]: edit(mint(key)), "malformed") for row in MALFORMED_TEXT],
    *[
        (attack, lambda key, _, header=header, claims=claims: mint(key, header, claims), "malformed")
        for attack, header, claims in MALFORMED_PARTS
    ],
    *[
        (attack, lambda key, _, header=header, claims=claims: mint(key, header, claims), reason)
        for attack, header, claims, reason in OTHER_REASONS
    ],
    *[
        (
            f"B12/B27 {offsets}",
            lambda key, _, offsets=offsets: mint(key, None, {it: NOW + by for it, by in offsets.items()}),
            reason,
        )
        for offsets, reason in TIMES
        if reason
    ],
    *SIGNATURES,
    *[
        (f"B1/B13/B14 {source}", lambda _key, _, token=token: token, "malformed")
        for source, token in RFC_TOKENS.items()
    ],
]
UNSENDABLE = {"surrogate"}
"""UTF-8 cannot encode half a surrogate pair, so the body itself is refused: see the hostile requests."""

SENT = [row for row in HOSTILE if row[0] not in UNSENDABLE]


def test_the_catalogue_is_large():
    """There are at least 80 distinct hostile tokens."""
    assert len(SENT) >= 80
    assert len({row[0] for row in SENT}) == len(SENT)


def test_the_token_without_a_fault_is_accepted(target):
    """The unmodified token is accepted in both forms, so each refusal is due to its row's flaw."""
    target.policy(branch="main")
    in_json = target.exchange(mint(target.github))
    in_form = target.exchange_form(mint(target.github, None, {"jti": "another"}))
    assert (in_json.status_code, in_form.status_code) == (200, 200)


@pytest.mark.parametrize(("attack", "make", "reason"), SENT, ids=[row[0] for row in SENT])
def test_hostile_token_in_json(attack, make, reason, guarded, stranger_key, unchanged_but_for_refusals):
    """A hostile token gets a 401 with its own reason, is not echoed, and leaves at most an audit record of the refusal."""
    token = make(guarded.github, stranger_key)

    answer = guarded.http.post("/api/v1/oidc/token", json={"token": token})

    details = {"reason": reason} | ({"expectedAudience": AUDIENCE} if reason == "wrong_audience" else {})
    assert (answer.status_code, answer.json["code"]) == (401, "INVALID_OIDC_TOKEN"), answer.text
    shown = answer.json["details"]
    if reason == "wrong_issuer":
        shown.pop("issuer")
        details["expectedIssuers"] = [GITHUB]
    assert shown == details
    assert not token or token not in answer.text


@pytest.mark.parametrize(
    ("attack", "make", "reason"),
    [row for row in SENT if row[0] != "empty"],
    ids=[row[0] for row in SENT if row[0] != "empty"],
)
def test_hostile_token_in_the_form(attack, make, reason, guarded, stranger_key, unchanged_but_for_refusals):
    """In RFC 8693's form, the same tokens are `invalid_request`, with the same message."""
    token = make(guarded.github, stranger_key)

    answer = guarded.exchange_form(token)

    in_json = guarded.http.post("/api/v1/oidc/token", json={"token": token}).json
    assert (answer.status_code, answer.json["error"]) == (400, "invalid_request"), answer.text
    assert answer.json["error_description"] == f"INVALID_OIDC_TOKEN: {in_json['message']}"


@pytest.mark.parametrize(("attack", "make", "reason"), SENT[::8], ids=[row[0] for row in SENT[::8]])
def test_hostile_token_as_a_bearer(attack, make, reason, guarded, stranger_key, unchanged):
    """A hostile token is also refused as a bearer token (B15)."""
    token = make(guarded.github, stranger_key).encode("ascii", "ignore").decode()
    headers = {"Authorization": "Bearer " + token.replace("\n", "").replace("\0", "")}

    answer = guarded.http.get("/api/v1/agents", headers=headers)

    assert (answer.status_code, answer.json["code"]) == (401, "UNAUTHORIZED")


def test_refusals_are_counted_by_reason(guarded, stranger_key):
    """Tokens that are refused before their sender is known are counted for the audit, once per request."""
    guarded.refusal_counter.drain()
    for _, make, _ in SIGNATURES:
        guarded.exchange(make(guarded.github, stranger_key))
    counts = {kind.reason: count for kind, count in guarded.refusal_counter.drain().items()}
    assert counts == {"bad_signature": 6, "algorithm_not_allowed": 1}
