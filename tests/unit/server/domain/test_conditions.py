"""The declarations of conditions: allowed values, and the claims they are compared with."""

import pytest

from sentryagent_idp.domain.conditions import DECLARED
from sentryagent_idp.domain.identity import CLAIM_PREFIXES, WorkflowIdentity

PROPERTIES = [
    ({"team": ["core"]}, None),
    ({"Cost_center-$#9": ["a b", "\u00fc", "x" * 255]}, None),
    ({f"p{number}": ["x"] for number in range(20)}, None),
    ({"x" * 75: [str(number) for number in range(100)]}, None),
    ({}, "write 1 to 20 properties"),
    ({f"p{number}": ["x"] for number in range(21)}, "write 1 to 20 properties"),
    ({"": ["core"]}, "a property's name as on GitHub"),
    ({"x" * 76: ["core"]}, "a property's name as on GitHub"),
    ({"te am": ["core"]}, "a property's name as on GitHub"),
    ({"team\n": ["core"]}, "a property's name as on GitHub"),
    ({"te\u0430m": ["core"]}, "a property's name as on GitHub"),
    ({"repo_property_team": ["core"]}, "without repo_property_"),
    ({"team": []}, "write 1 to 100 values"),
    ({"team": [str(number) for number in range(101)]}, "write 1 to 100 values"),
    ({"team": ["core"], "tier": ["1,2"]}, "contains a comma"),
    ({"team": ["core", ""]}, "must not be empty"),
    ({"team": ["a\nb"]}, "control characters"),
    ({"team": ["a\u202eb"]}, "direction"),
    ({"team": ["\u00fc" * 128]}, "longer than 255 bytes"),
]


@pytest.mark.parametrize(("value", "fault"), PROPERTIES)
def test_properties(value, fault):
    """Names follow GitHub's rules, values are whole and without commas, and both are limited in number."""
    found = DECLARED["properties"].problem(value)
    assert (found is None) if fault is None else (fault in found)


def test_every_condition_is_compared_with_what_a_run_has():
    """Each condition is compared with an attribute of `WorkflowIdentity`, and its claims are claims of a token."""
    for condition in DECLARED.values():
        assert hasattr(WorkflowIdentity, condition.actual)
        assert set(condition.claims) <= set(WorkflowIdentity.__struct_fields__)


def test_claims_with_a_prefix_are_read_by_the_rest_of_their_names():
    """`properties` has every claim with the prefix, keyed by the rest of its name, and no similar claim."""
    assert CLAIM_PREFIXES == {"properties": "repo_property_"}
    required = {
        "sub": "s",
        "jti": "j",
        "iat": 1,
        "exp": 2,
        "repository": "acme/api",
        "ref": "",
        "event_name": "push",
    }
    ids = {"repository_id": "1", "repository_owner_id": "2"}
    claims = {"iss": "https://i", **required, **ids, "properties": "x", "xrepo_property_a": "y"}

    run = WorkflowIdentity.from_claims({**claims, "repo_property_team": "core", "repo_property_": "z"})

    assert run.properties == {"team": "core", "": "z"}
    assert run.claims() == {
        "sub": "s",
        "jti": "j",
        "repository": "acme/api",
        "ref": "",
        "event_name": "push",
        **ids,
        "repo_property_team": "core",
        "repo_property_": "z",
    }
