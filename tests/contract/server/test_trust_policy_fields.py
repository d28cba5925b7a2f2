"""The rules of a trust policy's fields: an invalid value is refused by field, with advice."""

import pytest

from kit.policies import listed, post
from kit.provider import NOBODY
from kit.refusals import assert_invalid

CALLED = "octo-org/automation/.github/workflows/deploy.yml@refs/heads/main"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "repository",
            [
                None,
                "",
                "octo-org",
                "octo-org/",
                "/x",
                "octo-org/*",
                "octo-*/x",
                "a/b/c",
                "octo org/x",
                "octo-org/x\n",
                "https://github.com/a/b",
                "octö/x",
                "octo-org/.",
                "octo-org/..",
                "-x/y",
                "x" * 40 + "/y",
                "\u212a/x",
                1,
            ],
        ),
        ("provider", ["gitlab", "", "GitHub", 1]),
        (
            "branch",
            [
                "",
                "refs/heads/main",
                "refs/tags/v1",
                "a b",
                "a..b",
                "/a",
                "a/",
                "a~1",
                "a?",
                "a[b]",
                "a\\b",
                "@{x",
                "a\x00",
                "a\n",
                "a\u202eb",
                "x" * 256,
                ["main"],
                1,
            ],
        ),
        ("tag", ["", "refs/tags/v1", "refs/heads/v1", "v 1", "v\x7f", "x" * 256, 1]),
        ("agentId", ["", "x", NOBODY.replace("-", ""), f"urn:uuid:{NOBODY}", 1]),
        ("environment", ["", "a\x00", "a\n", "x" * 256, 1, " prod", "prod ", "pr-*"]),
        (
            "workflow",
            [
                "",
                "deploy",
                ".github/workflows/deploy.yml",
                "a/b.yml",
                "deploy.yml\n",
                "deploy.json",
                " deploy.yml",
                1,
            ],
        ),
        (
            "calledWorkflow",
            ["", "deploy.yml", CALLED.partition("@")[0], CALLED + "\x00", CALLED + "*", "x" * 1025, 1],
        ),
        ("actorIds", [[], ["octocat"], [1], [""], ["1", "x"], "1", ["1"] * 101, ["-1"]]),
        ("runnerEnvironment", ["", "any", "Self-Hosted", 1]),
        ("visibility", ["", "secret", "Public", 1]),
        ("refProtected", [False, "true", 1, 0, [True]]),
        (
            "properties",
            [
                {},
                [],
                "team",
                {"": ["x"]},
                {"te am": ["x"]},
                {"repo_property_team": ["x"]},
                {"team": "core"},
                {"team": None},
                {"team": []},
                {"team": [1]},
                {"team": [""]},
                {"team": ["a,b"]},
                {"team": ["a\x00"]},
                {"team": ["x" * 256]},
                {"team": ["x"] * 101},
                {f"p{number}": ["x"] for number in range(21)},
            ],
        ),
        (
            "events",
            [[], ["Push"], ["*"], [""], "push", [1], ["push\n"], ["workflow_call"], ["pull_request_review"]],
        ),
        ("repositoryId", ["", "x", "-1", "1.0", "\u0661", 1]),
        ("repositoryOwnerId", ["", "x", "0x1", 1]),
        ("scopes", [[], ["agents:*"], ["nothing"], "agents:read", [1], ["agents:read agents:write"]]),
        ("maxTtl", [0, -1, "60", True, 1.0, 2**31, 10**19]),
        ("trustRegistered", [1, "true", "on", []]),
        ("enabled", [0, "false", []]),
        ("expiresAt", ["2027-01-01", 1, ""]),
        ("description", ["x" * 1025, "a\x00b", "a\x1bb", "a\u2028b", 1]),
        ("id", [NOBODY]),
        ("issuer", ["https://octo-evil.example"]),
        ("createdAt", ["2027-01-01T00:00:00Z"]),
        ("version", [1]),
        ("derivedFrom", [NOBODY]),
        ("subject", ["repo:*"]),
    ],
)
def test_field_rules(still_provider, field, values):
    """An invalid value is refused by field, and nothing is stored."""
    for value in values:
        assert_invalid(post(still_provider, **{field: value}), field)
    assert listed(still_provider) == []


GRANT = {"service": "https://deploy.example.com", "scopes": ["deploy:production"]}


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({"maxTtl": "60"}, "maxTtl", "it must be a whole number"),
        ({"maxTtl": 0}, "maxTtl", "it must be at least 1"),
        ({"enabled": 1}, "enabled", "it must be one of true, false"),
        ({"actorIds": "1"}, "actorIds", "it must be an array"),
        ({"properties": []}, "properties", "it must be an object"),
        ({"grants": ["x"]}, "grants", "it must be an object"),
        ({"description": 1}, "description", "it must be a string"),
        ({"description": "x" * 1025}, "description", "it is too long; the maximum length is 1024"),
        ({"actorIds": []}, "actorIds", "it must not be empty"),
        ({"grants": [GRANT] * 21}, "grants", "it is too long; the maximum length is 20"),
        ({"grants": [{**GRANT, "scopes": []}]}, "grants", "it must not be empty"),
        ({"grants": [{**GRANT, "x": 1}]}, "grants", "unknown field; remove it"),
        (
            {"runnerEnvironment": "linux"},
            "runnerEnvironment",
            "it must be one of github-hosted, self-hosted",
        ),
        (
            {"visibility": "secret"},
            "visibility",
            "it must be one of public, private, internal",
        ),
        ({"provider": "gitlab"}, "provider", "it must be github"),
    ],
)
def test_wrong_types_and_sizes_say_what_to_write(still_provider, body, field, reason):
    """The reason is in our own words, not in those of the validation library."""
    assert assert_invalid(post(still_provider, **body), field) == reason


def test_an_unknown_field_is_named_with_the_known_ones(still_provider):
    """A misspelt condition must not become a policy without it."""
    assert assert_invalid(post(still_provider, brnach="main"), "brnach").startswith(
        "unknown field; allowed: "
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"branch": "main", "tag": "v1"}, "tag"),
        ({"agentId": NOBODY, "trustRegistered": True}, "trustRegistered"),
    ],
)
def test_fields_that_exclude_each_other(still_provider, body, field):
    """A run has a branch or a tag, and only bootstrap policies register agents."""
    assert_invalid(post(still_provider, **body), field)


def test_a_flag_that_is_false_is_refused_with_advice(still_provider):
    """`false` demands nothing but reads as if it demanded the opposite, so it is refused."""
    assert "leave it out" in assert_invalid(post(still_provider, refProtected=False), "refProtected")


def test_a_token_that_came_as_the_name_of_a_property_is_not_repeated(still_provider):
    """A refusal repeats at most the beginning of a name that is not ours (B19)."""
    answer = post(still_provider, properties={"x" * 2000: "core"})

    assert_invalid(answer, "properties")
    assert "x" * 65 not in answer.text


def test_branch_hint(still_provider):
    """A branch written as refs/heads/main is refused with the advice to write main."""
    assert "main" in assert_invalid(post(still_provider, branch="refs/heads/main"), "branch")


@pytest.mark.parametrize(
    "branch", ["*", "**", "main", "release/*", "a/**/b", "fix#1", "é", "x" * 255, "{a,b}", "a|b"]
)
def test_branch_patterns(provider, branch):
    """`*` and `**` are wildcards; every other character that git accepts is literal."""
    assert post(provider, branch=branch).json["branch"] == branch
