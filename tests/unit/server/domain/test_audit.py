"""The details of a refused run in the audit log have a limited size."""

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
    """Details that fit are not changed."""
    details = {"code": "X", "trace": [_policy(10, 3)], "dryRun": False, "count": 3}

    assert cut_to_size(details) == details


@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f916", "\x00"])
@pytest.mark.parametrize(
    ("length", "items", "policies"),
    [(600, 1, 3), (16_000, 1, 3), (20, 100, 3), (250, 100, 3), (1000, 10, 3)],
)
def test_what_is_long_is_cut(letter, length, items, policies):
    """Long details are cut to 8 KiB of JSON; every field remains, and `truncated` is set."""
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
    """One long name is shortened without cutting the trace."""
    trace = [_policy(10, 3)]

    cut = cut_to_size({"ref": "r" * 16_000, "trace": trace})

    assert cut == {"ref": "r" * 512 + "…", "trace": trace, "truncated": True}


def test_the_trace_goes_if_nothing_else_helps():
    """If nothing else helps, the trace is dropped; the code and the reason remain."""
    details = {"code": "TRUST_POLICY_VIOLATION", "trace": [_policy(10, 3)] * 3}

    assert cut_to_size(details, most=100) == {"code": "TRUST_POLICY_VIO…", "trace": [], "truncated": True}


def test_custom_properties_go_first():
    """Custom properties, of which there may be many, are dropped first."""
    properties = {f"repo_property_{'n' * 70}{number}": "v" * 75 for number in range(100)}
    details = {**CLAIMS, "code": "TRUST_POLICY_VIOLATION", "trace": [_policy(10, 3)] * 3}

    assert cut_to_size({**details, "repo_property_team": "core"}) == {**details, "repo_property_team": "core"}
    assert cut_to_size({**details, **properties}) == {**details, "truncated": True}
