"""The explanation of a refused run, and the hints that help to fix it."""

from datetime import timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace

from sentryagent_idp.domain.explanation import explain, message, trace
from sentryagent_idp.domain.trust_policy import decide

REUSED = "acme/shared/.github/workflows/deploy.yml@refs/tags/v3"
TAG = {"ref": "refs/tags/v1.2", "ref_type": "tag"}
STRANGERS_EVENTS = ("pull_request", "pull_request_target", "workflow_run", "issue_comment")

HINTS = [
    # policy, run, failed condition, part of its hint
    ({"branch": "main"}, {"ref": "refs/heads/Main"}, "branch", "branch names are case-sensitive"),
    ({"branch": "release/*"}, {"ref": "refs/heads/release/1/2"}, "branch", "use `**`"),
    ({"branch": "main"}, {"ref": "refs/heads/dev"}, "branch", "add a policy for dev"),
    (
        {"branch": "main"},
        {"ref": "refs/tags/main", "ref_type": "tag"},
        "branch",
        "for the tag main, not for the branch",
    ),
    ({"branch": "main"}, TAG, "branch", "add a policy with `tag`"),
    ({"branch": "main"}, {"ref": "refs/pull/1/merge"}, "branch", "list pull_request in `events`"),
    ({"branch": "main"}, {"ref": ""}, "branch", "has no ref"),
    ({"branch": "main"}, {"ref_type": None}, "branch", "no claim `ref_type`"),
    ({"tag": "main"}, {}, "tag", "for the branch main, not for the tag"),
    ({"tag": "v1"}, {}, "tag", "add a policy with `branch`"),
    ({"tag": "v1"}, TAG, "tag", "add a policy for v1.2"),
    ({"tag": "v1"}, {"ref": "refs/pull/1/merge"}, "tag", "list pull_request in `events`"),
    ({}, {"ref": "refs/pull/1/merge"}, "ref", "list pull_request in `events`"),
    ({}, {"ref": ""}, "ref", "has no ref"),
    ({}, {"ref": "refs/notes/x"}, "ref", "neither a branch nor a tag"),
    ({"environment": "prod"}, {}, "environment", "add `environment: prod`"),
    ({"environment": "prod"}, {}, "environment", "replaces the ref in `sub`"),
    ({"environment": "\u00e9"}, {"environment": "\u00c9"}, "environment", "letters outside ASCII"),
    ({"environment": "prod"}, {"environment": "dev"}, "environment", "in the environment prod"),
    ({"workflow": "deploy.yml"}, {"job_workflow_ref": REUSED}, "workflow", "set `calledWorkflow` to"),
    ({"workflow": "CI.yml"}, {}, "workflow", "file names are case-sensitive"),
    ({"workflow": "cd.yml"}, {}, "workflow", "Start the workflow"),
    (
        {"called_workflow": REUSED},
        {"workflow_ref": REUSED},
        "calledWorkflow",
        "`calledWorkflow` is the reusable",
    ),
    (
        {"called_workflow": REUSED},
        {"job_workflow_ref": REUSED.upper()},
        "calledWorkflow",
        "only in letter case, which counts",
    ),
    ({"called_workflow": REUSED}, {"job_workflow_ref": f"{REUSED}.1"}, "calledWorkflow", "version after `@`"),
    ({"called_workflow": REUSED}, {"job_workflow_ref": None}, "calledWorkflow", "must match exactly"),
    ({"actor_ids": ("1",)}, {}, "actorIds", "not by login"),
    ({"runner_environment": "self-hosted"}, {}, "runnerEnvironment", "self-hosted runner"),
    ({"visibility": "public"}, {}, "visibility", "while the repository is public"),
    ({"ref_protected": True}, {"ref_protected": "false"}, "refProtected", "Protect refs/heads/main with"),
    ({"ref_protected": True}, {}, "refProtected", "no claim `ref_protected`"),
    ({"properties": {"team": ("core",)}}, {}, "properties", "no claim repo_property_team"),
    (
        {"properties": {"team": ("core",)}},
        {"properties": {"team": "core,web"}},
        "properties",
        "every value of a multi-select must be listed",
    ),
    ({"events": ("push",)}, {"event_name": "schedule"}, "events", "Add schedule"),
    (
        {"branch": "caf\u00e9"},
        {"ref": "refs/heads/cafe\u0301"},
        "branch",
        r"has 'caf\xe9', the run has 'cafe\u0301'",
    ),
    ({"branch": "*/caf\u00e9"}, {"ref": "refs/heads/x/cafe\u0301"}, "branch", "look alike"),
    ({"branch": "main"}, {"ref": "refs/heads/ma\u200bin"}, "branch", r"the run has 'ma\u200bin'"),
    ({"tag": "v1\ufe0f"}, {"ref": "refs/tags/v1", "ref_type": "tag"}, "tag", "look alike"),
    (
        {"environment": "prod\u200b"},
        {"environment": "Prod"},
        "environment",
        r"has 'prod\u200b', the run has 'Prod'",
    ),
    ({"environment": "prod "}, {"environment": "prod"}, "environment", "look alike"),
    (
        {"workflow": "\ufb01x.yml"},
        {"workflow_ref": "acme/api/.github/workflows/fix.yml@refs/heads/main"},
        "workflow",
        "look alike",
    ),
    ({"workflow": "c*.yml"}, {}, "workflow", "`workflow` does not support wildcards"),
    (
        {"properties": {"team": ("caf\u00e9",)}},
        {"properties": {"team": "cafe\u0301"}},
        "properties",
        "look alike",
    ),
    (
        {"properties": {"team": ("caf\u00e9",), "tier": ("1",)}},
        {"properties": {"team": "cafe\u0301", "tier": "2"}},
        "properties",
        "Each property must have a listed value",
    ),
    *[({}, {"event_name": event}, "events", f"Anyone can trigger {event}") for event in STRANGERS_EVENTS],
    ({"agent_id": None}, {}, "agentId", "bootstrap policy"),
    ({"agent_id": UUID(int=2)}, {}, "agentId", "for another agent"),
    ({"enabled": False}, {}, "enabled", "set `enabled` to true"),
]


@pytest.mark.parametrize(("policy", "run", "condition", "hint"), HINTS)
def test_hints(policy, run, condition, hint, make_policy, make_run, agent, now):
    """The most frequent mistakes get a specific hint."""
    run = make_run(**run)
    denied = decide([make_policy(**policy)], run, agent, now)
    (nearest,) = explain(denied, run, agent)["nearestPolicies"]
    hints = {failed["condition"]: failed["hint"] for failed in nearest["failed"]}
    assert hint in hints[condition]


def test_hint_for_an_expired_policy_and_for_a_missing_agent(make_policy, make_run, agent, now):
    """An expired policy's hint has the time, and a policy for an agent asks for the agent's id."""
    run = make_run()
    policy = make_policy(expires_at=now - timedelta(days=1))
    denied = decide([policy], run, None, now)
    (nearest,) = explain(denied, run, None)["nearestPolicies"]
    agent_id, expiry = nearest["failed"]
    assert agent_id["expected"] == str(agent)
    assert "send its `agentId`" in agent_id["hint"]
    assert expiry == {
        "condition": "expiresAt",
        "expected": "2026-11-23T12:00:00Z",
        "actual": "2026-11-24T12:00:00Z",
        "hint": "The policy has expired; set a later `expiresAt`, or remove it.",
    }


def test_explanation_of_a_wrong_branch(make_policy, make_run, agent, now):
    """The complete details of a refusal: relevant claims, nearest policies and the suggested policy."""
    run = make_run(ref="refs/heads/dev")
    denied = decide([make_policy(branch="main", visibility="private")], run, agent, now)
    assert message(denied, run, agent) == (
        "Branch not permitted: no trust policy of acme/api covers refs/heads/dev; run from branch main, "
        "or have an admin add a policy."
    )
    assert explain(denied, run, agent) == {
        "claims": {
            "repository": "acme/api",
            "repository_id": "101",
            "repository_owner_id": "7",
            "ref": "refs/heads/dev",
            "ref_type": "branch",
            "event_name": "push",
        },
        "nearestPolicies": [
            {
                "id": str(UUID(int=1000)),
                "matched": ["visibility"],
                "failed": [
                    {
                        "condition": "branch",
                        "expected": "main",
                        "actual": "dev",
                        "hint": "Run from a branch that the policy covers, or add a policy for dev.",
                    }
                ],
            }
        ],
        "suggestedPolicy": {
            "provider": "github",
            "repository": "acme/api",
            "agentId": str(agent),
            "branch": "dev",
            "visibility": "private",
            "repositoryId": "101",
            "repositoryOwnerId": "7",
            "scopes": ("agents:read",),
        },
    }


def test_claims_are_those_that_mattered(make_policy, make_run, agent, now):
    """A claim is shown if a condition on it failed, even if it is absent."""
    run = make_run()
    denied = decide([make_policy(environment="prod", actor_ids=("1",))], run, agent, now)
    claims = explain(denied, run, agent)["claims"]
    assert claims["environment"] is None
    assert claims["actor_id"] == "42"
    assert "job_workflow_ref" not in claims


def test_a_protected_ref_is_expected_as_a_policy_says_it(make_policy, make_run, agent, now):
    """The expected value is the policy's `true`, the actual value the token's claim."""
    run = make_run(ref_protected="false")
    explanation = explain(decide([make_policy(ref_protected=True)], run, agent, now), run, agent)
    (failed,) = explanation["nearestPolicies"][0]["failed"]
    assert (failed["expected"], failed["actual"]) == (True, "false")
    assert explanation["claims"]["ref_protected"] == "false"


def test_properties_are_shown_as_far_as_a_policy_names_them(make_policy, make_run, agent, now):
    """Only properties that a policy names are shown, with the expected lists, the run's values and the claims."""
    run = make_run(properties={"team": "core,web", "tier": "1", "secret": "x"})
    policy = make_policy(properties={"team": ("core",), "tier": ("1", "2"), "size": ("xl",)})
    explanation = explain(decide([policy], run, agent, now), run, agent)
    (failed,) = explanation["nearestPolicies"][0]["failed"]
    assert failed["expected"] == {"team": ["core"], "tier": ["1", "2"], "size": ["xl"]}
    assert failed["actual"] == {"team": "core,web", "tier": "1", "size": None}
    assert {name: it for name, it in explanation["claims"].items() if "property" in name} == {
        "repo_property_team": "core,web",
        "repo_property_tier": "1",
        "repo_property_size": None,
    }


def test_nearest_policies_are_three_at_most(make_policy, make_run, agent, now):
    """At most three policies are listed, nearest first (B20)."""
    run = make_run(ref="refs/heads/dev")
    policies = [
        make_policy(id=UUID(int=1), branch="a", environment="p", visibility="public"),
        make_policy(id=UUID(int=2), branch="b", environment="p"),
        make_policy(id=UUID(int=4), branch="c"),
        make_policy(id=UUID(int=3), branch="d"),
    ]
    denied = decide(policies, run, agent, now)
    nearest = explain(denied, run, agent)["nearestPolicies"]
    assert [it["id"] for it in nearest] == [str(UUID(int=number)) for number in (3, 4, 2)]
    assert [it["policyId"] for it in trace(denied.evaluations)] == [str(UUID(int=n)) for n in (1, 2, 4, 3)]
    assert "branch c or branch d" in message(denied, run, agent)


@pytest.mark.parametrize(
    ("asks", "others"),
    [(UUID(int=1), [None, UUID(int=2)]), (None, [UUID(int=1), UUID(int=2)])],
)
def test_own_policies_come_before_those_of_others(asks, others, make_policy, make_run, now):
    """Policies for the same agent come before policies for another agent or for registration."""
    run = make_run()
    own = make_policy(id=UUID(int=9), agent_id=asks, branch="a", environment="p", visibility="public")
    policies = [make_policy(id=UUID(int=n), agent_id=it) for n, it in enumerate(others, 1)]
    nearest = explain(decide([*policies, own], run, asks, now), run, asks)["nearestPolicies"]
    assert [it["id"] for it in nearest] == [str(UUID(int=number)) for number in (9, 1, 2)]


def test_of_two_as_near_the_one_that_counts_comes_first(make_policy, make_run, agent, now):
    """Of equally near policies a live one comes before disabled or expired ones."""
    run = make_run(ref="refs/heads/dev")
    policies = [
        make_policy(id=UUID(int=1), enabled=False),
        make_policy(id=UUID(int=2), expires_at=now),
        make_policy(id=UUID(int=3), branch="main"),
    ]
    nearest = explain(decide(policies, run, agent, now), run, agent)["nearestPolicies"]
    assert [it["id"] for it in nearest] == [str(UUID(int=number)) for number in (3, 1, 2)]


def test_immutable_sub_is_named_as_not_the_cause(make_policy, make_run, agent, now):
    """If `sub` has ids, the hint says that `sub` is not compared (A9); the trace does not change."""
    run = make_run(ref="refs/heads/dev", sub="repo:acme@7/api@101:ref:refs/heads/dev")
    denied = decide([make_policy(branch="main", visibility="public")], run, agent, now)
    branch, visibility = explain(denied, run, agent)["nearestPolicies"][0]["failed"]
    assert "is not the cause" in branch["hint"]
    assert "is not the cause" not in visibility["hint"]
    assert "is not the cause" not in str(trace(denied.evaluations))


@pytest.mark.parametrize("subject", ["repo:acme/api:environment:a@b", "repo:acme/api:ref:refs/heads/a@b"])
def test_other_subs_get_no_note(subject, make_policy, make_run, agent, now):
    """An `@` elsewhere in `sub` is not taken for an id."""
    run = make_run(ref="refs/heads/dev", sub=subject)
    denied = decide([make_policy(branch="main")], run, agent, now)
    assert "is not the cause" not in str(explain(denied, run, agent))


def test_messages_of_a_violation(make_policy, make_run, agent, now):
    """Each cause has its own message, and all begin with the same words."""
    run = make_run()
    none = decide([], run, agent, now)
    inactive = decide([make_policy()], run, agent, now, agent_is_active=False)
    failing = decide([make_policy(environment="prod", visibility="public")], run, agent, now)
    texts = [message(denied, run, agent) for denied in (none, inactive, failing)]
    assert all(text.startswith("Trust policy violation: ") for text in texts)
    assert "acme/api has no trust policy" in texts[0]
    assert "if the repository was renamed" in texts[0]
    assert f"the agent {agent} is unknown or not active" in texts[1]
    assert "the nearest fails on environment, visibility" in texts[2]
    assert not any("details" in text or "hints" in text for text in texts)


@pytest.mark.parametrize("service", [None, "https://deploy.example.com"])
def test_message_for_a_renamed_repository(service, make_run, agent, now):
    """The message lists the old names in the policies and says to update them, with or without a service."""
    run = make_run(repository="acme/new-api")
    denied = replace(decide([], run, agent, now, service=service), other_names=("acme/api", "old/api"))
    assert message(denied, run, agent).endswith(
        ", but policies of acme/api and old/api have its repositoryId: the repository was renamed or transferred; "
        "have an admin set `repository` in them to its new name."
    )


def test_no_suggestion_for_a_run_without_a_ref(make_run, agent, now):
    """Nothing is suggested, because no policy could allow a run without a ref."""
    run = make_run(ref="")
    denied = decide([], run, agent, now)
    assert explain(denied, run, agent)["suggestedPolicy"] is None


def test_message_of_changed_identity_and_missing_ref_type(make_policy, make_run, agent, now):
    """A recycled name needs an admin's attention; a missing claim is named."""
    run = make_run(ref_type=None)
    changed = decide([make_policy(repository_id="1")], run, agent, now)
    assert "same name, different ids" in message(changed, run, agent)
    missing = decide([make_policy(branch="main")], run, agent, now)
    assert "no claim ref_type" in message(missing, run, agent)


def test_message_for_a_branch_policy_and_a_run_without_ref(make_policy, make_run, agent, now):
    """The message describes an empty ref in words."""
    run = make_run(ref="")
    denied = decide([make_policy(branch="main")], run, agent, now)
    assert "a run without a ref" in message(denied, run, agent)


def test_trace_of_a_success(make_policy, make_run, agent, now):
    """The trace of an allowed run has the same format as that of a refused one."""
    allowed = decide([make_policy(branch="main")], make_run(), agent, now)
    assert trace(allowed.evaluations) == [
        {"policyId": str(UUID(int=1000)), "matched": ["branch"], "failed": []}
    ]
