"""The suggested policy lets the refused run in and drops no condition that refused it."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from msgspec.structs import replace

from sentryagent_idp.api.models import PolicyBody
from sentryagent_idp.domain.conditions import DECLARED, by_json_name, failures
from sentryagent_idp.domain.suggestion import nearest_first, suggested_policy
from sentryagent_idp.domain.trust_policy import Allowed, Denied, conditions_key, decide

REUSED = "acme/shared/.github/workflows/deploy.yml@refs/tags/v3"
OTHER_REUSED = "acme/shared/.github/workflows/deploy.yml@refs/tags/v2"
OTHER = UUID(int=2)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUEUE = "gh-readonly-queue/main/pr-7-" + "0123456789abcdef" * 2 + "01234567"
TAG = {"ref": "refs/tags/v1.2", "ref_type": "tag"}


@pytest.fixture(scope="session")
def suggest(now):
    """Return the policy suggested for a run that these policies refuse."""

    def suggest(policies, run, agent_id, **active):
        return suggested_policy(decide(policies, run, agent_id, now, **active), run, agent_id)

    return suggest


CONDITION_NAMES = [
    "branch",
    "tag",
    "environment",
    "workflow",
    "calledWorkflow",
    "actorIds",
    "runnerEnvironment",
    "visibility",
    "refProtected",
    "properties",
    "events",
]
REPLACED = [
    # conditions of the nearest policy, claims of a run on the branch dev, conditions of the suggestion
    ({"branch": "main"}, {}, {"branch": "dev"}),
    ({"branch": "main"}, TAG, {"tag": "v1.2"}),
    ({"tag": "v*"}, {}, {"branch": "dev"}),
    ({"tag": "v2*"}, TAG, {"tag": "v1.2"}),
    ({"branch": "main"}, {"environment": "prod"}, {"branch": "dev", "environment": "prod"}),
    ({"environment": "prod"}, {"environment": "test"}, {"branch": "dev", "environment": "test"}),
    ({"workflow": "cd.yml"}, {}, {"branch": "dev", "workflow": "ci.yml"}),
    (
        {"called_workflow": OTHER_REUSED},
        {"job_workflow_ref": REUSED},
        {"branch": "dev", "calledWorkflow": REUSED},
    ),
    ({"actor_ids": ("1", "2")}, {}, {"branch": "dev", "actorIds": ("42",)}),
    (
        {"runner_environment": "self-hosted"},
        {},
        {"branch": "dev", "runnerEnvironment": "github-hosted"},
    ),
    ({"visibility": "public"}, {}, {"branch": "dev", "visibility": "private"}),
    ({"events": ("schedule",)}, {}, {"branch": "dev", "events": ("push",)}),
    # Conditions that the run meets do not change, except `events`, which keeps only the run's event.
    ({"branch": "d*", "workflow": "cd.yml"}, {}, {"branch": "d*", "workflow": "ci.yml"}),
    ({"tag": "v*", "workflow": "cd.yml"}, TAG, {"tag": "v*", "workflow": "ci.yml"}),
    ({"branch": "main", "actor_ids": ("1", "42")}, {}, {"branch": "dev", "actorIds": ("1", "42")}),
    (
        {"branch": "main", "events": ("push", "pull_request_target")},
        {},
        {"branch": "dev", "events": ("push",)},
    ),
    (
        {"branch": "main", "environment": "PROD"},
        {"environment": "prod"},
        {"branch": "dev", "environment": "PROD"},
    ),
    (
        {"branch": "main", "ref_protected": True},
        {"ref_protected": "true"},
        {"branch": "dev", "refProtected": True},
    ),
    (
        {"properties": {"team": ("core",)}},
        {"properties": {"team": "web", "tier": "1"}},
        {"branch": "dev", "properties": {"team": ("web",)}},
    ),
    (
        {"properties": {"team": ("core",), "tier": ("1", "2")}},
        {"properties": {"team": "web,ops", "tier": "1"}},
        {"branch": "dev", "properties": {"team": ("web", "ops"), "tier": ("1", "2")}},
    ),
    (
        {"branch": "main", "properties": {"team": ("core", "web")}},
        {"properties": {"team": "core"}},
        {"branch": "dev", "properties": {"team": ("core", "web")}},
    ),
    # A policy for another agent or for registration is a template only if the agent has none.
    ({"workflow": "cd.yml", "agent_id": OTHER}, {}, {"branch": "dev", "workflow": "ci.yml"}),
    ({"workflow": "cd.yml", "agent_id": None}, {}, {"branch": "dev", "workflow": "ci.yml"}),
    # The branch of a merge queue entry never occurs again.
    ({"branch": "main"}, {"ref": f"refs/heads/{QUEUE}"}, {"branch": "gh-readonly-queue/main/**"}),
    (
        {"workflow": "cd.yml"},
        {"ref": f"refs/heads/{QUEUE}"},
        {"branch": "gh-readonly-queue/main/**", "workflow": "ci.yml"},
    ),
    (
        {"branch": "main"},
        {"ref": "refs/heads/gh-readonly-queue/release/1.0/pr-12-abcdef0"},
        {"branch": "gh-readonly-queue/release/1.0/**"},
    ),
    ({"branch": "main"}, {"ref": "refs/heads/gh-readonly-queue/x"}, {"branch": "gh-readonly-queue/x"}),
]


@pytest.mark.parametrize(("policy", "run", "wanted"), REPLACED)
def test_what_fails_takes_the_runs_value(policy, run, wanted, suggest, make_policy, make_run, agent):
    """All conditions of the nearest policy are kept; those that failed get the run's value."""
    run = make_run(**{"ref": "refs/heads/dev", **run})
    suggested = suggest([make_policy(**policy)], run, agent)
    assert {name: suggested[name] for name in CONDITION_NAMES if name in suggested} == wanted
    assert suggested["agentId"] == str(agent)
    assert (suggested["repositoryId"], suggested["repositoryOwnerId"]) == ("101", "7")


NO_VALUE = [
    # conditions of the nearest policy, claims of a run without a usable value
    ({"environment": "prod"}, {}),
    ({"environment": "prod"}, {"environment": ""}),
    ({"environment": "prod"}, {"environment": "a\u202eb"}),
    ({"branch": "main", "environment": "prod"}, {"ref": "refs/heads/dev"}),
    ({"workflow": "cd.yml"}, {"workflow_ref": None}),
    ({"workflow": "cd.yml"}, {"workflow_ref": "evil/api/.github/workflows/ci.yml@refs/heads/main"}),
    ({"called_workflow": REUSED}, {"job_workflow_ref": None}),
    ({"called_workflow": REUSED}, {"job_workflow_ref": "x"}),
    ({"actor_ids": ("1",)}, {"actor_id": None}),
    ({"actor_ids": ("1",)}, {"actor_id": "octocat"}),
    ({"runner_environment": "self-hosted"}, {"runner_environment": None}),
    ({"runner_environment": "self-hosted"}, {"runner_environment": "elsewhere"}),
    ({"visibility": "public"}, {"repository_visibility": None}),
    ({"visibility": "public"}, {"repository_visibility": "secret"}),
    ({"ref_protected": True}, {"ref_protected": "false"}),
    ({"ref_protected": True}, {"ref_protected": None}),
    ({"branch": "main", "ref_protected": True}, {"ref": "refs/heads/dev", "ref_protected": "false"}),
    ({"properties": {"team": ("core",)}}, {}),
    ({"properties": {"team": ("core",), "tier": ("1",)}}, {"properties": {"team": "web"}}),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": ""}}),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": "web,"}}),
    ({"properties": {"team": ("core",)}}, {"properties": {"team": "a\u202eb"}}),
    ({"events": ("schedule",)}, {"event_name": "Push"}),
    ({"environment": "prod", "agent_id": OTHER}, {}),
    ({"environment": "prod", "agent_id": None}, {}),
]


@pytest.mark.parametrize(("policy", "run"), NO_VALUE)
def test_no_gate_is_dropped(policy, run, suggest, make_policy, make_run, agent):
    """If the run has no value for a failed condition, nothing is suggested, and the hint is the remedy."""
    assert suggest([make_policy(**policy)], make_run(**run), agent) is None


NO_SUGGESTION = [
    {"event_name": "pull_request"},
    {"event_name": "pull_request_target"},
    {"event_name": "workflow_run"},
    {"event_name": "issue_comment"},
    {"ref": ""},
    {"ref": "refs/pull/1/merge"},
    {"ref": "refs/heads/main", "ref_type": None},
    {"ref": "refs/tags/main", "ref_type": "branch"},
    {"ref": "refs/heads/a\u202eb"},
    {"ref": f"refs/heads/{'x' * 256}"},
    {"ref": "refs/heads/refs/heads/x"},
    {"ref": "refs/heads/a*"},
    {"ref": "refs/heads/gh-readonly-queue/a*/pr-1-abc"},
    {"ref": "refs/tags/a*", "ref_type": "tag"},
    {"repository": "ac.me/api"},
    {"repository_id": "x"},
    {"repository_owner_id": "x"},
]


@pytest.mark.parametrize("run", NO_SUGGESTION)
def test_no_suggestion(run, suggest, make_run, agent):
    """Nothing is suggested for a run that strangers can cause, or whose ref or repository a policy cannot name."""
    assert suggest([], make_run(**run), agent) is None


def test_no_suggestion_for_an_inactive_agent(suggest, make_run, agent):
    """Nothing is suggested for an unknown or inactive agent, because no policy would help."""
    assert suggest([], make_run(), agent, agent_is_active=False) is None


@pytest.mark.parametrize(
    "others",
    [
        [{"branch": "main", "enabled": False}],
        [{"environment": "prod", "enabled": False}],
        [{"branch": "dev", "workflow": "cd.yml", "enabled": False}],
        [{"branch": "main", "expired": True}],
        [{"branch": "main", "environment": "prod", "expired": True}],
        [{"branch": "dev"}, {"branch": "main", "enabled": False}],
        [{"branch": "main", "environment": "PROD", "enabled": False}],
    ],
)
def test_what_is_there_already_is_changed_and_not_copied(others, suggest, make_policy, make_run, agent, now):
    """A disabled or expired policy must be changed by a PUT: a suggested copy would be a duplicate or expired."""
    run = make_run(environment="prod" if "environment" in others[0] else None)
    policies = [
        make_policy(
            id=UUID(int=number),
            expires_at=now if it.pop("expired", False) else None,
            **it,
        )
        for number, it in enumerate([dict(it) for it in others])
    ]
    assert suggest(policies, run, agent) is None


def test_another_agents_policy_is_no_twin(suggest, make_policy, make_run, agent):
    """An equal policy of another agent does not prevent a suggestion."""
    assert suggest([make_policy(branch="main", agent_id=OTHER)], make_run(), agent)["branch"] == "main"


def test_without_policies_the_run_says_all(suggest, make_run, agent):
    """Without policies the suggestion has the run's ref and environment, if a policy can name them, and defaults."""
    bare = {"provider": "github", "repository": "acme/api", "repositoryId": "101", "repositoryOwnerId": "7"}
    assert suggest([], make_run(), None) == {**bare, "branch": "main"}
    prod = {**bare, "branch": "main", "environment": "prod", "agentId": str(agent)}
    assert suggest([], make_run(environment="prod"), agent) == prod
    assert suggest([], make_run(environment="a\u202eb"), None) == {**bare, "branch": "main"}
    assert suggest([], make_run(**TAG), None) == {**bare, "tag": "v1.2"}


TERMS = ("scopes", "maxTtl", "expiresAt", "trustRegistered")
RICH = {"scopes": ("agents:write", "tokens:read"), "max_ttl": 120}


@pytest.mark.parametrize(
    ("asks", "policy", "terms"),
    [
        (UUID(int=1), {}, {"scopes": ("agents:read",)}),
        (UUID(int=1), RICH, {"scopes": ("agents:write", "tokens:read"), "maxTtl": 120}),
        (
            UUID(int=1),
            {**RICH, "agent_id": None, "trust_registered": True},
            {"scopes": ("agents:write", "tokens:read"), "maxTtl": 120},
        ),
        # The scopes of another agent do not tell which ones this agent needs.
        (UUID(int=1), {**RICH, "agent_id": OTHER}, {"maxTtl": 120}),
        (None, RICH, {"maxTtl": 120, "trustRegistered": False}),
        (
            None,
            {**RICH, "agent_id": None, "trust_registered": True},
            {"scopes": ("agents:write", "tokens:read"), "maxTtl": 120, "trustRegistered": True},
        ),
        (None, {"agent_id": None}, {"scopes": ("agents:read",), "trustRegistered": False}),
    ],
)
def test_terms_are_those_of_the_nearest_policy(asks, policy, terms, suggest, make_policy, make_run, now):
    """Scopes, lifetime, expiry and `trustRegistered` are copied, so that the suggestion grants no more."""
    run = make_run(ref="refs/heads/dev")
    end = now + timedelta(days=7)
    suggested = suggest([make_policy(branch="main", expires_at=end, **policy)], run, asks)
    assert {name: suggested[name] for name in TERMS if name in suggested} == {
        "expiresAt": "2026-12-01T12:00:00Z",
        **terms,
    }


def test_own_policies_are_the_template(suggest, make_policy, make_run, agent):
    """If the agent has a policy, it is the template, even if a bootstrap policy is nearer."""
    run = make_run(ref="refs/heads/dev")
    policies = [
        make_policy(id=UUID(int=1), agent_id=None, max_ttl=3600),
        make_policy(id=UUID(int=2), branch="main", workflow="cd.yml", max_ttl=60),
    ]
    suggested = suggest(policies, run, agent)
    assert (suggested["workflow"], suggested["maxTtl"]) == ("ci.yml", 60)


# Properties

TEXT = st.text("ab/.@*:\u00fc\u202e ", max_size=8)
ENVIRONMENTS = st.sampled_from(["prod", "PROD", "test"])
REFS = st.sampled_from(
    [
        ("refs/heads/main", "branch"),
        ("refs/heads/dev", "branch"),
        ("refs/heads/d/ev", "branch"),
        ("refs/tags/v1", "tag"),
        (f"refs/heads/{QUEUE}", "branch"),
        (f"refs/heads/{QUEUE}0", "branch"),
    ]
)
ODD_REFS = st.tuples(
    st.sampled_from(["refs/pull/1/merge", "", "refs/heads/main"])
    | st.builds("{}{}".format, st.sampled_from(["refs/heads/", "refs/tags/"]), TEXT),
    st.sampled_from(["branch", "tag", None]),
)
CLAIMS = {
    "ref": st.one_of(REFS, REFS, REFS, ODD_REFS),
    "event_name": st.sampled_from(["push", "push", "schedule", "pull_request"]),
    "environment": st.one_of(ENVIRONMENTS, ENVIRONMENTS, st.none(), TEXT),
    "workflow": st.sampled_from(["ci.yml", "cd.yml", "ci.yml", None]),
    "job_workflow_ref": st.sampled_from([REUSED, OTHER_REUSED, REUSED, None, "odd"]),
    "actor_id": st.sampled_from(["1", "2", "42", None]),
    "runner_environment": st.sampled_from(["github-hosted", "self-hosted", "github-hosted", None]),
    "repository_visibility": st.sampled_from(["public", "private", "private", None]),
    "ref_protected": st.sampled_from(["true", "true", "false", None]),
    "properties": st.sampled_from([{"team": "core"}, {"team": "core"}, {"team": "web"}, {}]),
}
RUNS = st.fixed_dictionaries(CLAIMS)
CHANGES = st.lists(
    st.sampled_from(sorted(CLAIMS)).flatmap(lambda name: st.tuples(st.just(name), CLAIMS[name])), max_size=2
).map(dict)
CONDITIONS = {
    "environment": ENVIRONMENTS,
    "workflow": st.sampled_from(["ci.yml", "cd.yml"]),
    "called_workflow": st.sampled_from([REUSED, OTHER_REUSED]),
    "actor_ids": st.sampled_from([("1",), ("1", "42")]),
    "runner_environment": st.sampled_from(["github-hosted", "self-hosted"]),
    "visibility": st.sampled_from(["private", "public"]),
    "ref_protected": st.just(True),
    "properties": st.sampled_from([{"team": ("core",)}, {"team": ("core", "ops")}]),
    "events": st.sampled_from([("push",), ("push", "pull_request_target"), ("schedule",), ("pull_request",)]),
}
REF_CONDITIONS = st.sampled_from(
    [{}, {"branch": "main"}, {"branch": "d**"}, {"branch": "**"}, {"tag": "v*"}, {"tag": "v2"}]
)
TERMS_OF_POLICIES = st.fixed_dictionaries(
    {
        "agent_id": st.sampled_from([None, UUID(int=1), OTHER]),
        "enabled": st.sampled_from([True, True, False]),
        "expires_at": st.sampled_from([None, None, NOW, NOW + timedelta(days=1)]),
        "scopes": st.sampled_from([("agents:read",), ("tokens:read",), ("agents:read", "agents:write")]),
        "max_ttl": st.sampled_from([None, 60, 600]),
    }
)
ROWS = st.builds(
    lambda terms, conditions, ref: {**terms, **conditions, **ref},
    TERMS_OF_POLICIES,
    st.fixed_dictionaries({}, optional=CONDITIONS),
    REF_CONDITIONS,
)


@pytest.fixture(scope="session")
def make_any_run(make_run):
    """Make a run with these claims: its ref with the type, its workflow as a file name."""

    def make(ref, workflow, **claims):
        name, ref_type = ref
        file = workflow and f"acme/api/.github/workflows/{workflow}@{name or 'a' * 40}"
        return make_run(ref=name, ref_type=ref_type, workflow_ref=file, **claims)

    return make


def as_policy(suggested, make_policy):
    """The policy that a POST of the suggestion creates, validated by the API's model."""
    body = PolicyBody.model_validate(json.loads(json.dumps(suggested)))
    terms = ("agent_id", "repository_id", "repository_owner_id", "scopes", "max_ttl", "expires_at")
    values = {name: getattr(body, name) for name in (*DECLARED, *terms)}
    if values["properties"]:
        values["properties"] = {name: tuple(it) for name, it in values["properties"].items()}
    return make_policy(
        id=UUID(int=99), **{name: tuple(it) if isinstance(it, list) else it for name, it in values.items()}
    )


def ref_of(run):
    """The run's ref; all entries of a merge queue count as the same."""
    if run.branch and run.branch.startswith("gh-readonly-queue/main/"):
        return "the queue of main"
    return run.branch, run.tag


def like(run):
    """The run's value for each condition, normalised for comparison."""
    return {
        "branch": ref_of(run),
        "tag": ref_of(run),
        "environment": (run.environment or "").lower(),
        "workflow": run.workflow_file,
        "calledWorkflow": run.job_workflow_ref,
        "actorIds": run.actor_id,
        "runnerEnvironment": run.runner_environment,
        "visibility": run.repository_visibility,
        "refProtected": run.ref_protected,
        "properties": run.properties.get("team"),
        "events": run.event_name,
    }


@given(claims=RUNS, changes=CHANGES, rows=st.lists(ROWS, max_size=3))
@pytest.mark.parametrize("agent_id", [None, UUID(int=1)])
def test_the_suggestion_lets_the_run_in_and_little_else(
    agent_id, claims, changes, rows, make_policy, make_any_run, now
):
    """The suggestion lets the run in, and other runs only if nearest policy and refused run together cover them."""
    policies = [make_policy(id=UUID(int=number), **row) for number, row in enumerate(rows)]
    run, other = make_any_run(**claims), make_any_run(**{**claims, **changes})
    denied = decide(policies, run, agent_id, now)
    assume(isinstance(denied, Denied))
    suggested = suggested_policy(denied, run, agent_id)
    event("suggested" if suggested else "no suggestion")
    if suggested is None:
        return

    posted = as_policy(suggested, make_policy)
    assert isinstance(decide([*policies, posted], run, agent_id, now), Allowed)
    assert isinstance(decide([posted], replace(run, repository_id="9"), agent_id, now), Denied)
    assert all(conditions_key(posted) != conditions_key(it) for it in policies)
    if policies:
        nearest = nearest_first(denied.evaluations, agent_id)[0].policy
        _assert_no_more_than(nearest, posted, agent_id)
        if isinstance(decide([posted], other, agent_id, now), Allowed):
            event("another run is let in" if like(other) != like(run) else "the like of it is let in")
            beyond = {it.condition for it in failures(nearest.conditions, other)} & by_json_name(
                nearest.conditions
            ).keys()
            assert {name: like(other)[name] for name in beyond} == {name: like(run)[name] for name in beyond}


def _assert_no_more_than(nearest, posted, agent_id):
    """The posted policy keeps all conditions (a branch may become a tag), and grants no more and no longer."""
    either = {"branch": "ref", "tag": "ref"}
    asked, kept = (
        {either.get(name, name) for name in by_json_name(it.conditions)} for it in (nearest, posted)
    )
    assert kept >= asked
    own = nearest.agent_id in {None, agent_id}
    assert set(posted.scopes) == (set(nearest.scopes) if own else {"agents:read"})
    assert (posted.max_ttl, posted.expires_at) == (nearest.max_ttl, nearest.expires_at)
