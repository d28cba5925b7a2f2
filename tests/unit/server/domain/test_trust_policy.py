"""The decision as a truth table: one rule per row, with the attack that it prevents."""

import json
from datetime import timedelta
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sentryagent_idp.domain.conditions import Conditions
from sentryagent_idp.domain.trust_policy import (
    Allowed,
    DenialReason,
    Denied,
    ScopeRefused,
    conditions_key,
    decide,
    effective_ttl,
    granted_scopes,
)

ALLOWED = None
BRANCH = DenialReason.BRANCH_NOT_PERMITTED
VIOLATION = DenialReason.TRUST_POLICY_VIOLATION
CHANGED = DenialReason.IDENTITY_CHANGED
REF_TYPE = DenialReason.REF_TYPE_MISSING

TAG_RUN = {"ref": "refs/tags/v1.2", "ref_type": "tag"}
PULL_RUN = {"ref": "refs/pull/1/merge", "event_name": "pull_request"}
REUSED = "acme/shared/.github/workflows/deploy.yml@refs/tags/v3"
STRANGERS_EVENTS = ("pull_request", "pull_request_target", "workflow_run", "issue_comment")
"""The four events that docs/trust-policies.md names, written out, so that the test does not rely on the product's own list."""

TABLE = [
    # A policy without conditions allows every branch and tag of its repository.
    ({}, {}, ALLOWED),
    ({}, {"ref": "refs/heads/a/b"}, ALLOWED),
    ({}, TAG_RUN, ALLOWED),
    ({}, {"ref_type": None}, ALLOWED),
    ({}, {"ref": "refs/heads/gh-readonly-queue/main/pr-1", "event_name": "merge_group"}, ALLOWED),
    ({}, {"ref": ""}, VIOLATION),
    ({}, {"ref": "refs/notes/x"}, VIOLATION),
    ({}, {"ref": "main"}, VIOLATION),
    ({}, {"ref": "refs/pull/1/merge", "event_name": "pull_request_review"}, VIOLATION),
    # Repository (A12, B16): compared as a whole, without ASCII case.
    ({"repository": "Acme/API"}, {}, ALLOWED),
    ({}, {"repository": "ACME/api"}, ALLOWED),
    ({"repository": "acme/api-evil"}, {}, VIOLATION),
    ({"repository": "acme/ap"}, {}, VIOLATION),
    ({"repository": "acme/kit"}, {"repository": "acme/\u212ait"}, VIOLATION),
    ({"repository": "mona_acme/api"}, {"repository": "Mona_ACME/api"}, ALLOWED),
    ({"repository": "mona_acme/api"}, {"repository": "mona-acme/api"}, VIOLATION),
    ({"issuer": "https://token.actions.githubusercontent.com/acme"}, {}, VIOLATION),
    ({"provider": "gitlab"}, {}, VIOLATION),
    # Candidates: policies for exactly this agent, enabled and not expired (B26).
    ({"agent_id": UUID(int=2)}, {}, VIOLATION),
    ({"agent_id": None}, {}, VIOLATION),
    ({"enabled": False}, {}, VIOLATION),
    # Branch (A5): a name under refs/heads/ with ref_type branch, case-sensitive.
    ({"branch": "main"}, {}, ALLOWED),
    ({"branch": "main"}, {"ref": "refs/heads/Main"}, BRANCH),
    ({"branch": "main"}, {"ref": "refs/heads/main/x"}, BRANCH),
    ({"branch": "main"}, {"ref": "refs/heads/main\n"}, BRANCH),
    ({"branch": "main"}, {"ref": "refs/heads/xmain"}, BRANCH),
    ({"branch": "main"}, {"ref": "refs/heads/refs/heads/main"}, BRANCH),
    ({"branch": "main"}, {"ref": "refs/tags/main", "ref_type": "tag"}, BRANCH),
    ({"branch": "main"}, {"ref": "refs/heads/main", "ref_type": "tag"}, BRANCH),
    ({"branch": "main"}, {"ref": "refs/tags/main", "ref_type": "branch"}, BRANCH),
    ({"branch": "main"}, {"ref": "main"}, BRANCH),
    ({"branch": "main"}, {"ref": ""}, BRANCH),
    ({"branch": "**"}, {"ref": "refs/tags/v1", "ref_type": "tag"}, BRANCH),
    ({"branch": "release/*"}, {"ref": "refs/heads/release/1.2"}, ALLOWED),
    ({"branch": "release/*"}, {"ref": "refs/heads/release/"}, ALLOWED),
    ({"branch": "release/*"}, {"ref": "refs/heads/release/1/2"}, BRANCH),
    ({"branch": "release/**"}, {"ref": "refs/heads/release/1/2"}, ALLOWED),
    ({"branch": "release.x"}, {"ref": "refs/heads/release-x"}, BRANCH),
    ({"branch": "main|x"}, {"ref": "refs/heads/main"}, BRANCH),
    ({"branch": "main"}, {"ref_type": None}, REF_TYPE),
    ({"branch": "main"}, {"ref": "refs/heads/dev", "ref_type": None}, REF_TYPE),
    # Tag: the same rules under refs/tags/.
    ({"tag": "v*"}, TAG_RUN, ALLOWED),
    ({"tag": "v1"}, TAG_RUN, BRANCH),
    ({"tag": "main"}, {}, BRANCH),
    ({"tag": "v1.2"}, {**TAG_RUN, "ref_type": "branch"}, BRANCH),
    ({"tag": "v1.2"}, {**TAG_RUN, "ref_type": None}, REF_TYPE),
    # A policy with both is refused when written; if one exists, no run matches it.
    ({"branch": "main", "tag": "main"}, {}, BRANCH),
    # Events (A6, A7): the four that strangers can cause must be listed by name.
    *[({}, {"event_name": event}, VIOLATION) for event in STRANGERS_EVENTS],
    *[({"branch": "main"}, {"event_name": event}, VIOLATION) for event in STRANGERS_EVENTS],
    *[({"events": (event,)}, {"event_name": event}, ALLOWED) for event in STRANGERS_EVENTS],
    ({"events": ("push",)}, {}, ALLOWED),
    ({"events": ("schedule", "push")}, {}, ALLOWED),
    ({"events": ("schedule",)}, {}, VIOLATION),
    ({"events": ("pus",)}, {}, VIOLATION),
    ({"events": ()}, {}, VIOLATION),
    ({"branch": "main", "events": ("pull_request_target",)}, {"event_name": "pull_request_target"}, ALLOWED),
    # Pull requests (A7): refs/pull/ matches only without branch and tag, and with pull_request listed.
    ({}, PULL_RUN, VIOLATION),
    ({"events": ("pull_request",)}, PULL_RUN, ALLOWED),
    ({"events": ("pull_request_review",)}, {**PULL_RUN, "event_name": "pull_request_review"}, VIOLATION),
    ({"branch": "**", "events": ("pull_request",)}, PULL_RUN, BRANCH),
    ({"branch": "main"}, PULL_RUN, VIOLATION),
    ({"tag": "**", "events": ("pull_request",)}, PULL_RUN, BRANCH),
    # Environment (A11): compared without ASCII case; an absent environment matches nothing, not even an empty one.
    ({"environment": "prod"}, {"environment": "prod"}, ALLOWED),
    ({"environment": "Prod"}, {"environment": "pROD"}, ALLOWED),
    ({"environment": "prod"}, {}, VIOLATION),
    ({"environment": "prod"}, {"environment": ""}, VIOLATION),
    ({"environment": "prod"}, {"environment": "prod2"}, VIOLATION),
    ({"environment": "k"}, {"environment": "\u212a"}, VIOLATION),
    ({"environment": "\u00e9"}, {"environment": "\u00c9"}, VIOLATION),
    ({"environment": "a:b"}, {"environment": "a%3Ab"}, VIOLATION),
    ({}, {"environment": "prod"}, ALLOWED),
    # Workflow (A13): the caller's workflow file.
    ({"workflow": "ci.yml"}, {}, ALLOWED),
    ({"workflow": "CI.yml"}, {}, VIOLATION),
    ({"workflow": "i.yml"}, {}, VIOLATION),
    ({"workflow": "ci.yml"}, {"workflow_ref": None}, VIOLATION),
    ({"workflow": "deploy.yml"}, {"job_workflow_ref": REUSED}, VIOLATION),
    ({"workflow": "ci.yml"}, {"job_workflow_ref": REUSED}, ALLOWED),
    (
        {"workflow": "ci.yml"},
        {"workflow_ref": "evil/api/.github/workflows/ci.yml@refs/heads/main"},
        VIOLATION,
    ),
    # Called workflow (A13): the whole claim, compared exactly.
    ({"called_workflow": REUSED}, {"job_workflow_ref": REUSED}, ALLOWED),
    ({"called_workflow": REUSED}, {"job_workflow_ref": f"{REUSED}.1"}, VIOLATION),
    ({"called_workflow": REUSED}, {"job_workflow_ref": None}, VIOLATION),
    ({"called_workflow": REUSED}, {"workflow_ref": REUSED}, VIOLATION),
    # Actor, runner, visibility (A15, A16).
    ({"actor_ids": ("1", "42")}, {}, ALLOWED),
    ({"actor_ids": ("4",)}, {}, VIOLATION),
    ({"actor_ids": ()}, {}, VIOLATION),
    ({"actor_ids": ("42",)}, {"actor_id": None}, VIOLATION),
    ({"runner_environment": "github-hosted"}, {}, ALLOWED),
    ({"runner_environment": "github-hosted"}, {"runner_environment": "self-hosted"}, VIOLATION),
    ({"runner_environment": "github-hosted"}, {"runner_environment": None}, VIOLATION),
    ({"visibility": "private"}, {}, ALLOWED),
    ({"visibility": "private"}, {"repository_visibility": "public"}, VIOLATION),
    ({"visibility": "private"}, {"repository_visibility": None}, VIOLATION),
    # Protected ref: the claim must be exactly GitHub's "true"; absent means not protected.
    ({"ref_protected": True}, {"ref_protected": "true"}, ALLOWED),
    ({"ref_protected": True}, {"ref_protected": "false"}, VIOLATION),
    ({"ref_protected": True}, {"ref_protected": None}, VIOLATION),
    ({"ref_protected": True}, {"ref_protected": ""}, VIOLATION),
    ({"ref_protected": True}, {"ref_protected": "True"}, VIOLATION),
    ({"ref_protected": True}, {"ref_protected": "true "}, VIOLATION),
    ({"ref_protected": True}, {"ref_protected": "1"}, VIOLATION),
    ({}, {"ref_protected": "false"}, ALLOWED),
    ({"branch": "main", "ref_protected": True}, {"ref_protected": "false"}, VIOLATION),
    ({"branch": "dev", "ref_protected": True}, {"ref_protected": "true"}, BRANCH),
    # Custom properties (A19): whole values, case-sensitive; every value of a multi-select must be listed.
    ({"properties": {"team": ("core",)}}, {"properties": {"team": "core"}}, ALLOWED),
    ({"properties": {"team": ("core", "web")}}, {"properties": {"team": "web"}}, ALLOWED),
    ({"properties": {"team": ("core",)}}, {"properties": {}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": ""}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": "Core"}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"Team": "core"}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": "hardcore"}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": "core2"}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": " core"}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": "core,evil"}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": "evil,core"}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": "core,"}}, VIOLATION),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": ","}}, VIOLATION),
    ({"properties": {"team": ("c*",)}}, {"properties": {"team": "core"}}, VIOLATION),
    ({"properties": {"team": ("core", "web")}}, {"properties": {"team": "core,web"}}, ALLOWED),
    ({"properties": {"team": ("core", "web")}}, {"properties": {"team": "web,core"}}, ALLOWED),
    ({"properties": {"team": ("core", "web")}}, {"properties": {"team": "web, core"}}, VIOLATION),
    ({"properties": {"team": ("core", "web")}}, {"properties": {"team": "core,web,ops"}}, VIOLATION),
    ({"properties": {"team": ()}}, {"properties": {"team": "core"}}, VIOLATION),
    (
        {"properties": {"team": ("core",), "tier": ("1", "2")}},
        {"properties": {"team": "core", "tier": "2", "other": "x"}},
        ALLOWED,
    ),
    (
        {"properties": {"team": ("core",), "tier": ("1", "2")}},
        {"properties": {"team": "core", "tier": "3"}},
        VIOLATION,
    ),
    ({"properties": {"team": ("core",), "tier": ("1",)}}, {"properties": {"team": "core"}}, VIOLATION),
    ({}, {"properties": {"team": "core"}}, ALLOWED),
    # All conditions are ANDed; the reason is the branch only if nothing else fails.
    ({"branch": "main", "environment": "prod"}, {"environment": "prod"}, ALLOWED),
    ({"branch": "main", "environment": "prod"}, {"ref": "refs/heads/x", "environment": "prod"}, BRANCH),
    ({"branch": "main", "environment": "prod"}, {"ref": "refs/heads/x"}, VIOLATION),
    ({"branch": "main", "agent_id": UUID(int=2)}, {"ref": "refs/heads/x"}, VIOLATION),
    ({"branch": "main", "enabled": False}, {"ref": "refs/heads/x"}, VIOLATION),
    # Pinned ids (A8): a different id under the same name is another repository, which is checked first.
    ({"repository_id": "101"}, {}, ALLOWED),
    ({"repository_id": "101", "repository_owner_id": "7"}, {}, ALLOWED),
    ({"repository_id": "102"}, {}, CHANGED),
    ({"repository_owner_id": "8"}, {}, CHANGED),
    ({"repository_id": "101", "repository_owner_id": "8"}, {}, CHANGED),
    ({"repository_id": "102", "branch": "main"}, {"ref": "refs/heads/x"}, CHANGED),
    ({"repository_id": "102", "branch": "main"}, {"ref_type": None}, CHANGED),
    ({"repository_id": "102", "agent_id": UUID(int=2)}, {}, CHANGED),
    ({"repository_id": "102", "agent_id": None}, {}, CHANGED),
    ({"repository_id": "102", "enabled": False}, {}, VIOLATION),
    ({"repository_id": "102", "repository": "acme/other"}, {}, VIOLATION),
    ({"repository_id": "102", "issuer": "https://ghe.example/_services/token"}, {}, VIOLATION),
]


@pytest.mark.parametrize(("policy", "run", "expected"), TABLE)
def test_decide(policy, run, expected, make_policy, make_run, agent, now):
    """Each row has one policy, one run and the expected decision."""
    decision = decide([make_policy(**policy)], make_run(**run), agent, now)
    assert (decision.reason if isinstance(decision, Denied) else ALLOWED) == expected


def test_no_policy_is_a_refusal(make_run, agent, now):
    """Without policies every run is refused, as an agent and for registration."""
    for agent_id in (agent, None):
        assert decide([], make_run(), agent_id, now) == Denied(VIOLATION, ())


@pytest.mark.parametrize(("seconds", "is_allowed"), [(-1, True), (0, False), (1, False)])
def test_expiry_is_to_the_second(seconds, is_allowed, make_policy, make_run, agent, now):
    """A policy is expired at `expiresAt`, but not a second before."""
    policy = make_policy(expires_at=now - timedelta(seconds=seconds))
    assert isinstance(decide([policy], make_run(), agent, now), Allowed) is is_allowed


def test_expired_policy_does_not_pin(make_policy, make_run, agent, now):
    """The ids of an expired policy are not checked."""
    policies = [make_policy(repository_id="102", expires_at=now), make_policy(branch="main")]
    assert isinstance(decide(policies, make_run(), agent, now), Allowed)


def test_bootstrap_needs_a_policy_without_agent(make_policy, make_run, agent, now):
    """Without an agent only a bootstrap policy can match."""
    bootstrap, of_agent = make_policy(agent_id=None), make_policy(agent_id=agent)
    assert decide([of_agent, bootstrap], make_run(), None, now).policy == bootstrap
    assert isinstance(decide([of_agent], make_run(), None, now), Denied)


def test_pin_of_one_policy_holds_for_all(make_policy, make_run, agent, now):
    """If a live policy knows the name under different ids, even a matching policy does not help."""
    policies = [make_policy(), make_policy(agent_id=UUID(int=9), repository_id="102")]
    assert decide(policies, make_run(), agent, now).reason is CHANGED


def test_inactive_agent_is_refused_whatever_matches(make_policy, make_run, agent, now):
    """An unknown or inactive agent is refused whatever policies match, but the ids are checked first."""
    denied = decide([make_policy()], make_run(), agent, now, agent_is_active=False)
    assert (denied.reason, denied.agent_is_active) == (VIOLATION, False)
    changed = decide([make_policy(repository_id="1")], make_run(), agent, now, agent_is_active=False)
    assert changed.reason is CHANGED
    branch = decide([make_policy(branch="x")], make_run(ref_type=None), agent, now, agent_is_active=False)
    assert branch.reason is VIOLATION


def test_agent_state_means_nothing_without_an_agent(make_policy, make_run, now):
    """A bootstrap exchange names no agent, so the agent's state does not matter."""
    assert isinstance(
        decide([make_policy(agent_id=None)], make_run(), None, now, agent_is_active=False), Allowed
    )


def test_missing_ref_type_matters_only_where_it_is_needed(make_policy, make_run, agent, now):
    """A policy without branch and tag allows a run without `ref_type`, even alongside one with a branch."""
    run = make_run(ref_type=None)
    assert isinstance(decide([make_policy(branch="main"), make_policy()], run, agent, now), Allowed)
    other = make_policy(branch="main", agent_id=UUID(int=2))
    off = make_policy(branch="main", enabled=False)
    assert decide([other, off, make_policy(environment="prod")], run, agent, now).reason is VIOLATION


def test_branch_is_named_where_one_of_several_fails_on_it_alone(make_policy, make_run, agent, now):
    """One candidate that fails only on its branch is enough for `branch_not_permitted`."""
    policies = [make_policy(environment="prod"), make_policy(branch="dev")]
    assert decide(policies, make_run(), agent, now).reason is BRANCH


PRECEDENCE = [
    # Most conditions first, then an exact name, then the oldest, then the smallest id.
    ({"environment": "prod", "branch": "*"}, {"branch": "main"}),
    ({"branch": "*", "actor_ids": ("42",)}, {"branch": "main"}),
    ({"branch": "main"}, {"branch": "ma*"}),
    ({"branch": "main"}, {"environment": "prod"}),
    ({"branch": "*", "ref_protected": True}, {"branch": "main"}),
    ({"branch": "*", "properties": {"team": ("core",)}}, {"branch": "main"}),
    # Properties count as one condition, however many there are.
    ({"branch": "main"}, {"properties": {"team": ("core",), "tier": ("1",)}}),
    ({"branch": "main"}, {}),
    ({"branch": "m*", "created_at": -1}, {"branch": "*n"}),
    ({"environment": "prod", "created_at": -1}, {"branch": "*"}),
    ({"created_at": -1, "id": UUID(int=2000)}, {}),
    ({"id": UUID(int=1)}, {}),
    # Ids and scopes are not conditions.
    ({"created_at": -1}, {"repository_id": "101", "repository_owner_id": "7", "scopes": ("agents:write",)}),
]


@pytest.mark.parametrize(("winner", "loser"), PRECEDENCE)
def test_most_specific_policy_decides(winner, loser, make_policy, make_run, agent, now):
    """Of two matching policies the same one decides in either order (B26); `created_at` is in seconds from now."""
    pair = [
        make_policy(**{"created_at": now, **it, **_moment(it, now)})
        for it in ({**winner}, {"id": UUID(int=1500), **loser})
    ]
    run = make_run(environment="prod", ref_protected="true", properties={"team": "core", "tier": "1"})
    for policies in permutations(pair):
        assert decide(policies, run, agent, now).policy == pair[0]


def _moment(members, now):
    return {"created_at": now + timedelta(seconds=members["created_at"])} if "created_at" in members else {}


def test_tag_is_as_exact_as_a_branch(make_policy, make_run, agent, now):
    """An exact tag takes precedence over a wildcard."""
    exact, wild = make_policy(tag="v1.2"), make_policy(tag="v*", id=UUID(int=1))
    assert decide([wild, exact], make_run(**TAG_RUN), agent, now).policy == exact


def test_evaluation_names_every_difference(make_policy, make_run, agent, now):
    """An evaluation lists met and unmet conditions under the API's names, administrative ones first."""
    policy = make_policy(
        branch="main",
        environment="prod",
        workflow="x.yml",
        called_workflow=REUSED,
        actor_ids=("1",),
        runner_environment="self-hosted",
        visibility="public",
        ref_protected=True,
        properties={"team": ("core",)},
        events=("push",),
        enabled=False,
        expires_at=now,
        agent_id=None,
    )
    (evaluation,) = decide([policy], make_run(), agent, now).evaluations
    assert evaluation.matched == ("branch", "events")
    assert [failure.condition for failure in evaluation.failed] == [
        "agentId",
        "enabled",
        "expiresAt",
        "environment",
        "workflow",
        "calledWorkflow",
        "actorIds",
        "runnerEnvironment",
        "visibility",
        "refProtected",
        "properties",
    ]
    assert all(failure.hint.endswith((".", ")")) for failure in evaluation.failed)


def test_evaluations_are_of_this_repository_only(make_policy, make_run, agent, now):
    """A refusal reveals nothing about another repository's policies (B20)."""
    denied = decide([make_policy(repository="acme/other")], make_run(), agent, now)
    assert denied.evaluations == ()


# Properties

NAMES = st.sampled_from(["main", "Main", "release/1", "v1", "*", "**", "release/*", "re**", ""])
CONDITION_SETS = st.fixed_dictionaries(
    {},
    optional={
        "branch": NAMES,
        "tag": NAMES,
        "environment": st.sampled_from(["prod", "PROD", ""]),
        "workflow": st.sampled_from(["ci.yml", "cd.yml"]),
        "called_workflow": st.just(REUSED),
        "actor_ids": st.sampled_from([("42",), ("1", "42"), ("1",)]),
        "runner_environment": st.sampled_from(["github-hosted", "self-hosted"]),
        "visibility": st.sampled_from(["public", "private"]),
        "ref_protected": st.just(True),
        "properties": st.just({"team": ("core", "web")}),
        "events": st.sampled_from([("push",), ("pull_request",), ("pull_request", "push"), ()]),
    },
)
RUNS = st.fixed_dictionaries(
    {
        "ref": st.sampled_from(
            [
                "refs/heads/main",
                "refs/heads/release/1",
                "refs/tags/v1",
                "refs/tags/main",
                "refs/pull/1/merge",
                "",
            ]
        ),
        "ref_type": st.sampled_from(["branch", "tag", None]),
        "event_name": st.sampled_from(["push", "schedule", *STRANGERS_EVENTS]),
        "environment": st.sampled_from([None, "", "prod", "dev"]),
        "job_workflow_ref": st.sampled_from([None, REUSED]),
        "actor_id": st.sampled_from([None, "1", "42"]),
        "repository_visibility": st.sampled_from(["public", "private"]),
        "ref_protected": st.sampled_from(["true", "false", None]),
        "properties": st.sampled_from([{}, {"team": "core,web"}, {"team": "ops"}]),
    }
)


@given(wide=CONDITION_SETS, more=CONDITION_SETS, claims=RUNS)
def test_adding_a_condition_never_widens(wide, more, claims, make_policy, make_run, agent, now):
    """Adding a condition never lets in a run that the policy without it refuses.

    `events` is an exception: listing one of the four events is a permission.
    """
    narrow = {**more, **wide}
    if "events" not in wide:
        narrow.pop("events", None)
    run = make_run(**claims)
    if isinstance(decide([make_policy(**narrow)], run, agent, now), Allowed):
        assert isinstance(decide([make_policy(**wide)], run, agent, now), Allowed)


@given(policies=st.lists(CONDITION_SETS, max_size=4), claims=RUNS, data=st.data())
def test_order_of_policies_does_not_matter(policies, claims, data, make_policy, make_run, agent, now):
    """The order of the rows does not change the deciding policy or the reason (B26)."""
    rows = [make_policy(id=UUID(int=index), **conditions) for index, conditions in enumerate(policies)]
    run = make_run(**claims)
    first, second = (decide(order, run, agent, now) for order in (rows, data.draw(st.permutations(rows))))
    assert type(first) is type(second)
    if isinstance(first, Allowed):
        assert first.policy == second.policy
    else:
        assert first.reason == second.reason


SUBJECTS = [
    "repo:acme/api:ref:refs/heads/main",
    "repo:acme@7/api@101:ref:refs/heads/main",
    "repo:evil@7/api@101:environment:prod",
    "repo:acme-7/api-101:ref:refs/heads/main",
    "repository_owner:evil:repository_visibility:public",
    "repo:acme/api",
    "workflow:x:ref:refs/heads/main",
    "\u212a",
]


@given(conditions=CONDITION_SETS, claims=RUNS, subject=st.sampled_from(SUBJECTS) | st.text())
def test_sub_never_decides(conditions, claims, subject, make_policy, make_run, agent, now):
    """The form of `sub` never changes the decision or its explanation (A9, A10)."""
    run = make_run(**claims)
    policies = [make_policy(**conditions)]
    assert decide(policies, replace(run, sub=subject), agent, now) == decide(policies, run, agent, now)


@given(
    conditions=CONDITION_SETS,
    claims=RUNS,
    issuer=st.text() | st.just("https://token.actions.githubusercontent.com/"),
)
def test_issuers_are_kept_apart(conditions, claims, issuer, make_policy, make_run, agent, now):
    """A token never matches, names or affects a policy of another issuer (B16)."""
    run = make_run(**claims)
    policy = make_policy(issuer=issuer, repository_id="999", **conditions)
    assert decide([policy], run, agent, now) == Denied(VIOLATION, ())


# Uses of the decision

CONDITIONS = {
    "branch": "main",
    "environment": "prod",
    "workflow": "ci.yml",
    "called_workflow": REUSED,
    "actor_ids": ("1",),
    "runner_environment": "self-hosted",
    "visibility": "public",
    "properties": {"team": ("core", "web"), "tier": ("1",)},
    "events": ("push",),
}


@pytest.mark.parametrize(
    "same",
    [
        {"enabled": False},
        {"description": "x"},
        {"scopes": ("agents:write",)},
        {"max_ttl": 5},
        {"repository_id": "1", "repository_owner_id": "2"},
        {"trust_registered": True},
        {"repository": "ACME/Api"},
        {"environment": "PROD"},
        {"events": ("push", "push")},
        {"properties": {"tier": ("1",), "team": ("web", "core", "web")}},
        {"version": 7},
    ],
)
def test_conditions_key_ignores_what_does_not_count(same, make_policy):
    """Policies that differ only in these fields are duplicates."""
    assert conditions_key(make_policy(**{**CONDITIONS, **same})) == conditions_key(make_policy(**CONDITIONS))


@pytest.mark.parametrize(
    "other",
    [
        {"issuer": "https://x"},
        {"provider": "gitlab"},
        {"agent_id": None},
        {"repository": "acme/web"},
        {"branch": "Main"},
        {"branch": None, "tag": "main"},
        {"workflow": None},
        {"ref_protected": True},
        {"properties": None},
        {"properties": {"team": ("core", "web")}},
        {"properties": {"team": ("core", "web"), "tier": ("2",)}},
        {"properties": {"team": ("core", "web", "ops"), "tier": ("1",)}},
        {"properties": {"Team": ("core", "web"), "tier": ("1",)}},
        {"actor_ids": ("2",)},
        {"events": ("push", "schedule")},
    ],
)
def test_conditions_key_tells_policies_apart(other, make_policy):
    """Policies that differ in one of these fields are different."""
    assert conditions_key(make_policy(**{**CONDITIONS, **other})) != conditions_key(make_policy(**CONDITIONS))


def test_conditions_key_is_canonical_json(make_policy):
    """Lists are sorted, and the text is the same in every process."""
    key = conditions_key(make_policy(events=("b", "a", "b"), environment="PROD"))
    assert json.loads(key)["events"] == ["a", "b"]
    assert key == json.dumps(json.loads(key), sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    ("max_ttl", "requested", "expected"),
    [
        (None, None, 3600),
        (600, None, 600),
        (None, 300, 300),
        (600, 900, 600),
        (7200, 9000, 3600),
        (600, 60, 60),
    ],
)
def test_lifetime_is_only_ever_shortened(max_ttl, requested, expected, make_policy):
    """Policy and request can only shorten the provider's lifetime."""
    assert effective_ttl(make_policy(max_ttl=max_ttl), requested, 3600) == expected


@pytest.mark.parametrize(
    ("given_scopes", "requested", "expected"),
    [
        (("agents:read", "tokens:read"), None, ("agents:read", "tokens:read")),
        (("agents:read", "tokens:read"), ["tokens:read"], ("tokens:read",)),
        (("agents:read", "tokens:read"), ["tokens:read", "tokens:read"], ("tokens:read",)),
        (("agents:write",), ["agents:read"], ("agents:read",)),
        (("agents:read",), ["agents:write"], ScopeRefused("agents:write", ("agents:read",))),
        (("agents:read",), ["agents:read", "x"], ScopeRefused("x", ("agents:read",))),
    ],
)
def test_scopes_are_only_ever_narrowed(given_scopes, requested, expected, make_policy):
    """A request selects from the policy's scopes; one scope too many refuses the request."""
    assert granted_scopes(make_policy(scopes=given_scopes), requested) == expected


def test_bootstrap_gives_registration_whatever_its_scopes(make_policy):
    """The scopes of a bootstrap policy are for its derived policies; the bootstrap token can only register."""
    bootstrap = make_policy(agent_id=None, scopes=("policies:write",))
    assert granted_scopes(bootstrap, None) == ("agents:write",)
    assert granted_scopes(bootstrap, ["policies:write"]) == ScopeRefused("policies:write", ("agents:write",))


def test_a_decision_is_no_boolean():
    """Neither outcome defines `__bool__`: callers check the type of a decision, not its truth."""
    assert "__bool__" not in Allowed.__dict__
    assert "__bool__" not in Denied.__dict__


def test_conditions_default_to_nothing(make_policy):
    """A new policy has no conditions."""
    assert make_policy().conditions == Conditions()
    assert not Conditions().names_ref
