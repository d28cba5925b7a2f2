"""The details of a refused run: small, whatever is in a token."""

import json

import pytest

from sentryagent_idp.domain.audit import cut_to_size

CLAIMS = {f"claim_{number}": "x" for number in range(20)}


def _policy(length, items):
    failed = [
        {"condition": "c", "expected": ["e" * length] * items, "actual": "a" * length, "hint": "h" * length}
        for _ in range(12)
    ]
    return {"policyId": "p" * 36, "matched": ["m"] * 9, "failed": failed}


def test_what_fits_is_left_alone():
    """Nothing is cut, and nothing said, where there is room."""
    details = {"code": "X", "trace": [_policy(10, 3)], "dryRun": False, "count": 3}

    assert cut_to_size(details) == details


@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f916", "\x00"])
@pytest.mark.parametrize(
    ("length", "items", "policies"),
    [(600, 1, 3), (16_000, 1, 3), (20, 100, 3), (250, 100, 3), (1000, 10, 3)],
)
def test_what_is_long_is_cut(letter, length, items, policies):
    """8 KiB at most, as JSON, with every member and a word that something is missing."""
    details = {
        **dict.fromkeys(CLAIMS, letter * length),
        "code": "TRUST_POLICY_VIOLATION",
        "trace": [_policy(length, items)] * policies,
    }

    cut = cut_to_size(details)

    assert len(json.dumps(cut)) <= 8 * 1024
    assert cut.keys() == {*details, "truncated"}
    assert cut["truncated"] is True
    assert cut["code"].startswith("TRUST_POLICY_VIO")
    assert cut["claim_0"].startswith(letter * 16)


def test_no_more_is_cut_than_it_takes():
    """One long name costs the trace nothing."""
    trace = [_policy(10, 3)]

    cut = cut_to_size({"ref": "r" * 16_000, "trace": trace})

    assert cut == {"ref": "r" * 512 + "…", "trace": trace, "truncated": True}


def test_the_trace_goes_if_nothing_else_helps():
    """The members that say who was refused and why stay."""
    details = {"code": "TRUST_POLICY_VIOLATION", "trace": [_policy(10, 3)] * 3}

    assert cut_to_size(details, most=100) == {"code": "TRUST_POLICY_VIO…", "trace": [], "truncated": True}


def test_custom_properties_go_first():
    """An organisation may have any number of properties; they never cost the record its reason."""
    properties = {f"repo_property_{'n' * 70}{number}": "v" * 75 for number in range(100)}
    details = {**CLAIMS, "code": "TRUST_POLICY_VIOLATION", "trace": [_policy(10, 3)] * 3}

    assert cut_to_size({**details, "repo_property_team": "core"}) == {**details, "repo_property_team": "core"}
    assert cut_to_size({**details, **properties}) == {**details, "truncated": True}
