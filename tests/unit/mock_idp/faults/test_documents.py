import json
from pathlib import Path

import pytest

import mock_idp
from mock_idp.faults.documents import ANSWER_FAULTS, DISCOVERY_FAULTS, KEY_SET_FAULTS, Answer, fault_names
from mock_idp.signing_keys import make_key

ISSUER = "http://127.0.0.1:3001"
ANSWER = Answer(200, b'{"count":3,"value":"abc"}')


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reset", {"reset": True}),
        ("truncated", {"cut": True}),
        ("empty", {"body": b""}),
        ("garbage", {"body": b"<html>bad gateway</html>"}),
        ("wrong-content-type", {"content_type": "text/html"}),
        ("not-an-object", {"body": b'["value"]'}),
        ("missing-members", {"body": b"{}"}),
        ("redirect", {"status": 302, "redirect": True}),
    ],
)
def test_answer_faults_change_what_they_name(name, expected):
    """Each fault of an answer shows in its own member."""
    answer = ANSWER_FAULTS[name](ANSWER)

    assert {member: getattr(answer, member) for member in expected} == expected


def test_a_huge_answer_is_valid_json_of_sixteen_mebibytes():
    """Only a limit on size refuses it."""
    answer = ANSWER_FAULTS["huge"](ANSWER)

    assert len(json.loads(answer.body)["padding"]) == 16 * 1024 * 1024


@pytest.mark.parametrize("name", KEY_SET_FAULTS)
def test_no_faulty_key_set_gives_the_right_key_for_the_kid(name, ring):
    """A verifier that takes the first key of the kid never verifies a good token with it."""
    keys = KEY_SET_FAULTS[name](ring.key_set(), make_key(with_certificate=False))["keys"]

    first = next((key for key in keys if key.get("kid") == ring.signing.kid), {})
    assert (first.get("n"), first.get("kty")) != (ring.signing.jwk()["n"], "RSA")


@pytest.mark.parametrize("name", DISCOVERY_FAULTS)
def test_faulty_discovery_documents_mislead_about_issuer_or_keys(name):
    """Each one differs in the issuer or in where the keys are."""
    good = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/.well-known/jwks", "scopes_supported": ["openid"]}

    faulty = DISCOVERY_FAULTS[name](good)

    assert {key for key in good if faulty.get(key) != good[key]} in ({"issuer"}, {"jwks_uri"})


def test_the_catalogue_is_documented():
    """The manual names every fault, so that nobody has to read the source for one."""
    manual = (Path(mock_idp.__file__).parent / "README.md").read_text("utf-8")

    names = {name for endpoint in ("token", "discovery", "jwks") for name in fault_names(endpoint)}
    assert [name for name in sorted(names) if f"`{name}`" not in manual] == []
