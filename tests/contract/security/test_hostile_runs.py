"""Runs with genuine ID tokens that no policy is meant for: an attacker's own repository, or an outsider's events.

Each row has a policy that its author considers safe, and the claims of the attacker's run.
"""

import json

import pytest

from kit.processes import ROOT
from sentryagent_idp.domain.used_token import UsedToken

MAIN = {"branch": "main"}
CALLED = "acme/automation/.github/workflows/deploy.yml@refs/heads/main"
BRANCH, VIOLATION, CHANGED = "BRANCH_NOT_PERMITTED", "TRUST_POLICY_VIOLATION", "IDENTITY_CHANGED"
FROM_TAG = {"ref": "refs/tags/main", "ref_type": "tag"}
FROM_PULL = {"ref": "refs/pull/1/merge", "event_name": "pull_request"}


def _run_of(file, ref="refs/heads/main", repository="acme/api"):
    return {"ref": ref, "workflow_ref": f"{repository}/.github/workflows/{file}@{ref}"}


CORE = {"properties": {"team": ["core"]}}
RUNS = [
    # attack, policy, claims, code
    ("A1 any other repository", MAIN, {"repository": "evil/api"}, VIOLATION),
    ("A1 another of the same owner", MAIN, {"repository": "acme/web"}, VIOLATION),
    ("A4 a name that begins alike", MAIN, {"repository": "acme/api-evil"}, VIOLATION),
    ("A4 an owner that ends alike", MAIN, {"repository": "evil-acme/api"}, VIOLATION),
    ("A4 a name within the name", MAIN, {"repository": "acme/api/.github"}, VIOLATION),
    ("A4 a branch across a slash", {"branch": "release/*"}, {"ref": "refs/heads/release/x/evil"}, BRANCH),
    ("A4 a branch that only begins so", {"branch": "release/*"}, {"ref": "refs/heads/releases"}, BRANCH),
    ("A4 a dot is a dot", {"branch": "v1.2"}, {"ref": "refs/heads/v1x2"}, BRANCH),
    ("A4 a bar is a bar", {"branch": "main|dev"}, {"ref": "refs/heads/dev"}, BRANCH),
    ("A4 the run's own star is no wildcard", MAIN, {"ref": "refs/heads/*"}, BRANCH),
    ("A5 a tag of that name", MAIN, FROM_TAG, BRANCH),
    ("A5 a tag that says branch", MAIN, {**FROM_TAG, "ref_type": "branch"}, BRANCH),
    ("A5 a branch that says tag", MAIN, {"ref_type": "tag"}, BRANCH),
    ("A5 a branch for a tag", {"tag": "v*"}, {"ref": "refs/heads/v1"}, BRANCH),
    ("A5 a branch named refs/heads/main", MAIN, {"ref": "refs/heads/refs/heads/main"}, BRANCH),
    ("A5 a branch below", MAIN, {"ref": "refs/heads/main/x"}, BRANCH),
    ("A5 a newline at the end", MAIN, {"ref": "refs/heads/main\n"}, BRANCH),
    ("A5 another case", MAIN, {"ref": "refs/heads/Main"}, BRANCH),
    ("A5 the bare name", MAIN, {"ref": "main"}, BRANCH),
    ("A5 no ref", MAIN, {"ref": ""}, BRANCH),
    ("A6 pull_request_target on main", MAIN, {"event_name": "pull_request_target"}, VIOLATION),
    ("A6 workflow_run on main", MAIN, {"event_name": "workflow_run"}, VIOLATION),
    ("A6 issue_comment on main", MAIN, {"event_name": "issue_comment"}, VIOLATION),
    ("A6 and without a branch", {}, {"event_name": "pull_request_target"}, VIOLATION),
    ("A6 an event beside the listed", {"events": ["push"]}, {"event_name": "issue_comment"}, VIOLATION),
    ("A7 a pull request", MAIN, FROM_PULL, VIOLATION),
    ("A7 a pull request, any branch", {"branch": "**"}, FROM_PULL, VIOLATION),
    ("A7 a pull request, listed, any branch", {"branch": "**", "events": ["pull_request", "push"]}, FROM_PULL, BRANCH),
    ("A7 a pull request's ref, pushed", {}, {"ref": "refs/pull/1/merge"}, VIOLATION),
    ("A7 a pull request from main", MAIN, {**FROM_PULL, "head_ref": "main", "base_ref": "main"}, VIOLATION),
    ("A8 the repository made anew", {"repositoryId": "101"}, {"repository_id": "999"}, CHANGED),
    ("A8 the owner made anew", {"repositoryOwnerId": "7"}, {"repository_owner_id": "999"}, CHANGED),
    ("A8 both", {"repositoryId": "101", "repositoryOwnerId": "7"}, {"repository_id": "9", "repository_owner_id": "9"}, CHANGED),
    ("A8 the id under another name", {"repositoryId": "101"}, {"repository": "acme/renamed"}, VIOLATION),
    ("A9 a sub that collides by its hyphens", MAIN, {"repository": "acme-7/api-101", "sub": "repo:acme/api:ref:refs/heads/main"}, VIOLATION),
    ("A9 a sub of the victim's, with ids", MAIN, {"repository": "evil/x", "sub": "repo:acme@7/api@101:ref:refs/heads/main"}, VIOLATION),
    ("A10 a sub of the attacker's making", MAIN, {"repository": "evil/x", "sub": "repository_owner:acme:ref:refs/heads/main"}, VIOLATION),
    ("A11 no environment", {"environment": "prod"}, {}, VIOLATION),
    ("A11 an empty environment", {"environment": "prod"}, {"environment": ""}, VIOLATION),
    ("A11 an environment in sub only", {"environment": "prod"}, {"sub": "repo:acme/api:environment:prod"}, VIOLATION),
    ("A11 escaped as in sub", {"environment": "prod:eu"}, {"environment": "prod%3Aeu"}, VIOLATION),
    ("A11 a longer name", {"environment": "prod"}, {"environment": "prod "}, VIOLATION),
    ("A12 a letter that lower() makes a k", {"repository": "acme/kit"}, {"repository": "acme/\u212ait"}, VIOLATION),
    ("A12 an environment with that letter", {"environment": "k"}, {"environment": "\u212a"}, VIOLATION),
    ("A13 the called workflow's name", {"workflow": "deploy.yml"}, {"job_workflow_ref": CALLED}, VIOLATION),
    ("A13 the caller's name", {"calledWorkflow": CALLED}, {"workflow_ref": CALLED}, VIOLATION),
    ("A13 the same file of another repository", {"calledWorkflow": CALLED}, {"job_workflow_ref": f"evil{CALLED}"}, VIOLATION),
    ("A13 another version of it", {"calledWorkflow": CALLED}, {"job_workflow_ref": f"{CALLED}-x"}, VIOLATION),
    ("A14 a branch that ends like a file", {"workflow": "ci.yml"}, _run_of("evil.yml", "refs/heads/ci.yml"), VIOLATION),
    ("A14 a file with an at sign", {"workflow": "ci.yml"}, _run_of("ci.yml@evil.yml"), VIOLATION),
    ("A14 a file in a folder below", {"workflow": "ci.yml"}, _run_of("evil/ci.yml"), VIOLATION),
    ("A14 a file of another repository", {"workflow": "ci.yml"}, _run_of("ci.yml", repository="evil/api"), VIOLATION),
    ("A14 no workflow at all", {"workflow": "ci.yml"}, {"workflow_ref": ...}, VIOLATION),
    ("A15 a runner of the attacker's", {"runnerEnvironment": "github-hosted"}, {"runner_environment": "self-hosted"}, VIOLATION),
    ("A15 an unknown runner", {"runnerEnvironment": "github-hosted"}, {"runner_environment": ...}, VIOLATION),
    ("A16 another actor", {"actorIds": ["42"]}, {"actor_id": "4"}, VIOLATION),
    ("A16 the actor's name in place of the id", {"actorIds": ["42"]}, {"actor": "octocat", "actor_id": "43"}, VIOLATION),
    ("A19 a property that names the repository", MAIN, {"repository": "evil/x", "repo_property_repository": "acme/api"}, VIOLATION),
    ("A19 a value among others", CORE, {"repo_property_team": "core,evil"}, VIOLATION),
    ("A19 a value behind others", CORE, {"repo_property_team": "evil,core"}, VIOLATION),
    ("A19 a value within another", CORE, {"repo_property_team": "hardcore"}, VIOLATION),
    ("A19 a value with another case", CORE, {"repo_property_team": "Core"}, VIOLATION),
    ("A19 a value and an empty one", CORE, {"repo_property_team": "core,"}, VIOLATION),
    ("A19 another property with the value", CORE, {"repo_property_teams": "core"}, VIOLATION),
    ("A19 a claim with the property's bare name", CORE, {"team": "core", "properties": {"team": "core"}}, VIOLATION),
    ("A19 no property at all", CORE, {}, VIOLATION),
    ("a ref that is not protected", {"refProtected": True}, {"ref_protected": "false"}, VIOLATION),
    ("a ref of which nobody says that it is protected", {"refProtected": True}, {"ref_protected": ...}, VIOLATION),
    ("B22 a Cyrillic letter", MAIN, {"repository": "acme/\u0430pi"}, VIOLATION),
    ("B22 a newline", MAIN, {"repository": "acme/api\n"}, VIOLATION),
    ("B22 a blank", MAIN, {"repository": " acme/api"}, VIOLATION),
    ("B22 a way up", MAIN, {"repository": "evil/../acme/api"}, VIOLATION),
    ("B23 SQL in the repository", MAIN, {"repository": "acme/api' OR '1'='1"}, VIOLATION),
    ("B23 LIKE in the repository", MAIN, {"repository": "acme/%"}, VIOLATION),
    ("B23 LIKE's single character", MAIN, {"repository": "acme/ap_"}, VIOLATION),
    ("a visibility that changed", {"visibility": "private"}, {"repository_visibility": "public"}, VIOLATION),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "policy", "claims", "code"), RUNS, ids=[row[0] for row in RUNS])
def test_hostile_run(attack, policy, claims, code, target):
    """The run is refused with the row's code, uses up nothing, and learns nothing about another repository."""
    stored = target.policy(**policy)
    before = target.rows()

    answer = target.exchange(target.github_token(**claims))

    assert (answer.status_code, answer.json["code"]) == (403, code), answer.text
    assert "access_token" not in answer.text
    after = target.rows()
    assert after.pop("audit_log") == before.pop("audit_log") + 1
    assert after == before
    is_own = claims.get("repository", "acme/api") == stored["repository"]
    assert is_own or stored["id"] not in answer.text


@pytest.mark.parametrize("policy", [MAIN, {}, {"environment": "prod"}, {"workflow": "ci.yml"}])
def test_the_run_that_is_meant_is_let_in(policy, target):
    """The same policies allow the runs that they are meant for."""
    target.policy(**policy)
    assert target.exchange(target.github_token(environment="prod")).status_code == 200


@pytest.mark.parametrize(
    "repository", ["", "acme", "acme/*", "*", "acme/", "/api", "**/**", "acme/api/x", None, "%"]
)
def test_no_policy_is_for_everybody(repository, target):
    """A policy must name exactly one repository; there is no catch-all (A1)."""
    answer = target.post("/api/v1/oidc/trust-policies", json={"repository": repository, "branch": "main"})
    assert (answer.status_code, answer.json["details"]["field"]) == (400, "repository")


def test_an_issuer_of_its_own_has_no_policies(target):
    """After a change of the configured issuer, the old issuer's policies no longer apply (A17, B16)."""
    target.policy(branch="main")
    enterprise = target.with_settings(GITHUB_ISSUER="https://token.actions.githubusercontent.com/acme")
    token = target.github_token(iss="https://token.actions.githubusercontent.com/acme")

    refused = enterprise.exchange(token)

    assert (refused.status_code, refused.json["code"]) == (403, VIOLATION)
    assert refused.json["details"]["nearestPolicies"] == []
    assert target.exchange(token).json["details"]["reason"] == "wrong_issuer"


@pytest.mark.parametrize(("trusted", "other"), [(0, 1), (1, 0)])
def test_the_twin_of_an_environment_is_refused(trusted, other, target):
    """A policy tells `Production:V1` from `Production%3AV1`, for which GitHub's real tokens have the same `sub`."""
    tokens = json.loads((ROOT / "tests" / "vectors" / "github_tokens.json").read_text())["tokens"]
    twins = [token["claims"] for token in tokens if token["environment"]]
    of_the_request = {"aud", "iss", "jti", "iat", "nbf", "exp"}
    means, twin = (
        {name: it[name] for name in it.keys() - of_the_request} for it in (twins[trusted], twins[other])
    )
    target.policy(
        repository=means["repository"], environment=means["environment"], events=["workflow_dispatch"]
    )

    refused = target.exchange(target.github_token(**twin))

    assert twin["sub"] == means["sub"]
    assert (refused.status_code, refused.json["code"]) == (403, VIOLATION)
    assert target.exchange(target.github_token(**means)).status_code == 200


def test_a_stolen_token_is_worth_one_exchange(target):
    """Whichever comes second, the thief or the job, is refused, and the audit has both requests (A18)."""
    target.policy(branch="main")
    token = target.github_token()

    first, second = target.exchange(token), target.exchange(token)

    assert (first.status_code, second.status_code) == (200, 401)
    assert second.json["details"] == {"reason": "replayed"}
    records = target.audit()
    by_request = {
        record["requestId"]: record["details"]["jti"] for record in records if "jti" in record["details"]
    }
    ids = [answer.headers["X-Request-Id"] for answer in (first, second)]
    assert set(ids) <= set(by_request)
    assert by_request[ids[0]] == by_request[ids[1]]


def test_the_same_jti_of_another_issuer_is_another_token(target):
    """Tokens of different issuers may have the same `jti`: one issuer cannot use up another's tokens (B16)."""
    target.policy(branch="main")
    with target.store.write() as tx:
        tx.used_tokens.claim(UsedToken("https://other.example", "shared", target.clock()))
    assert target.exchange(target.github_token(jti="shared")).status_code == 200


@pytest.mark.parametrize("seconds", [0, 329, 330, 389])
def test_a_jti_outlives_its_token(seconds, target):
    """A `jti` is kept until its token is no longer accepted, so that a purge never allows a replay (B7)."""
    target.policy(branch="main")
    token = target.github_token()
    assert target.exchange(token).status_code == 200
    target.clock.advance(seconds)
    with target.store.write() as tx:
        tx.used_tokens.purge(target.clock(), limit=100)

    answer = target.exchange(token)

    expected = "replayed" if seconds < 330 else "expired"
    assert answer.json["details"] == {"reason": expected}
    assert target.rows()["used_tokens"] == 1


def test_a_purged_jti_belongs_to_a_token_that_is_over(target):
    """When a `jti` is purged, its token has already been expired for a minute (B7)."""
    target.policy(branch="main")
    token = target.github_token()
    assert target.exchange(token).status_code == 200
    target.clock.advance(391)
    with target.store.write() as tx:
        assert tx.used_tokens.purge(target.clock(), limit=100) == 1
    assert target.exchange(token).json["details"] == {"reason": "expired"}


AUDIENCES = ["sts.amazonaws.com", "api://AzureADTokenExchange", "sigstore", "pypi", "https://github.com/acme"]


@pytest.mark.parametrize("audience", AUDIENCES)
def test_a_token_for_a_cloud_is_not_for_us(audience, target):
    """A token that a job requested for another service is refused from any sender (A3)."""
    target.policy(branch="main")
    answer = target.exchange(target.github_token(aud=audience))
    assert answer.json["details"] == {"reason": "wrong_audience", "expectedAudience": "https://idp.example"}
