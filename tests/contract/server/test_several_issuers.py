"""Several GitHub issuers at one provider, and policies of issuers that are no longer configured."""

import pytest
from structlog.testing import capture_logs

from kit.cli import assert_fails, run
from kit.github import GithubKeys
from kit.provider import AGENTS, GITHUB, NOBODY, POLICIES, REPOSITORY, good, made
from kit.refusals import assert_invalid, assert_refused
from kit.tokens import bearer, claims_of
from mock_idp.issuer import Issuer
from sentryagent_idp.config import Settings
from sentryagent_idp.serve import prepare

GHES = "https://ghes.example.com/_services/token"
ACME = f"{GITHUB}/acme"


@pytest.fixture(scope="module")
def ghes_keys():
    return Issuer(GHES).ring


@pytest.fixture
def both(provider, ghes_keys):
    """A provider for github.com and a GitHub Enterprise Server, each with keys of its own."""
    both = provider.with_settings(GITHUB_ISSUER=f"{GITHUB},{GHES}")
    both.ghes = Issuer(GHES, ring=ghes_keys)
    return both


@pytest.fixture(autouse=True)
def keys_of_each(monkeypatch, ghes_keys):
    """The keys that each issuer publishes."""
    published = {GHES: GithubKeys(lambda: {key.kid: key.private.public_key() for key in ghes_keys.published})}
    monkeypatch.setattr(
        "kit.provider.Provider.keys_by_issuer",
        lambda self: {issuer: published.get(issuer, self.keys) for issuer in self.settings.github_issuers},
    )
    return published


def ghes_token(both, **claims):
    """An ID token of the GHES for the same run as `github_token`."""
    github, both.github = both.github, both.ghes
    try:
        return both.github_token(**claims)
    finally:
        both.github = github


def test_a_policy_belongs_to_one_issuer(both):
    """The first issuer is the default; a policy allows runs of its own issuer only."""
    of_github = both.policy()
    assert of_github["issuer"] == GITHUB
    assert both.exchange().status_code == 200
    assert_refused(both.exchange(ghes_token(both)), 403, "TRUST_POLICY_VIOLATION")

    of_ghes = both.policy(issuer=GHES)

    assert of_ghes["issuer"] == GHES
    assert both.exchange(ghes_token(both)).status_code == 200
    stored = {it["issuer"]: it["repositoryId"] for it in good(both.get(POLICIES))["data"]}
    assert stored.keys() == {GITHUB, GHES}
    good(both.delete(f"{POLICIES}/{of_github['id']}"), 204)
    assert_refused(both.exchange(), 403, "TRUST_POLICY_VIOLATION")


def test_keys_of_one_issuer_sign_for_no_other(both):
    """A token that names one issuer but is signed with another's key is refused (B16)."""
    both.policy(issuer=GHES)
    forged = both.github_token(iss=GHES)

    refused = both.exchange(forged)

    assert_refused(refused, 401, "INVALID_OIDC_TOKEN", {"reason": "unknown_key"})


def test_ids_of_one_issuer_pin_no_policy_of_another(both):
    """Issuers assign the same numbers, so a policy takes ids only from policies of its own issuer."""
    both.policy(repositoryId="1", repositoryOwnerId="2")

    assert both.policy(issuer=GHES, branch="main")["repositoryId"] is None
    assert both.policy(branch="main")["repositoryId"] == "1"


@pytest.mark.parametrize("issuer", ["https://octo-evil.example", ACME, "", f"{GITHUB}/", 5, [GITHUB]])
def test_issuer_must_be_configured(both, issuer):
    """POST and PUT accept only a configured issuer."""
    policy = both.policy()
    assert_invalid(both.post(POLICIES, json={"repository": "octo-org/x", "issuer": issuer}), "issuer")
    assert_invalid(both.put(f"{POLICIES}/{policy['id']}", json={**policy, "issuer": issuer}), "issuer")
    assert both.replace_policy(policy)["issuer"] == GITHUB


def test_put_moves_a_policy_only_as_written(both):
    """A PUT without `issuer` keeps the policy's issuer, even if it is not the first; with `issuer` it moves."""
    agent_id = both.agent()["agentId"]
    policy = both.policy(issuer=GHES, agentId=agent_id)
    body = {"repository": REPOSITORY, "agentId": agent_id}

    kept = good(both.put(f"{POLICIES}/{policy['id']}", json=body))
    moved = good(both.put(f"{POLICIES}/{policy['id']}", json={**body, "issuer": GITHUB}))

    assert (kept["issuer"], moved["issuer"]) == (GHES, GITHUB)
    assert both.exchange(agentId=agent_id).status_code == 200
    assert_refused(both.exchange(ghes_token(both), agentId=agent_id), 403, "TRUST_POLICY_VIOLATION")


def test_a_derived_policy_has_the_issuer_of_its_origin(both):
    """An agent registered from a GHES repository is trusted from there only."""
    both.policy(issuer=GHES, trustRegistered=True)
    headers = bearer(good(both.exchange(ghes_token(both)))["access_token"])

    agent = made(both.post(AGENTS, json={"email": "bot@octo-org.example"}, headers=headers))

    assert both.exchange(ghes_token(both), agentId=agent["agentId"]).status_code == 200
    assert_refused(both.exchange(agentId=agent["agentId"]), 403, "TRUST_POLICY_VIOLATION")


@pytest.mark.parametrize("of_agent", [True, False])
def test_suggested_policy_is_of_the_issuer_of_the_run(both, of_agent):
    """Posted as it is, the suggestion allows the run: it names the issuer unless that is the default."""
    body = {"agentId": both.agent()["agentId"]} if of_agent else {}
    both.policy(branch="other", **body)
    for token, issuer in ((both.github_token, GITHUB), (lambda: ghes_token(both), GHES)):
        suggested = both.exchange(token(), **body).json["details"]["suggestedPolicy"]

        assert suggested.get("issuer") == (None if issuer == GITHUB else GHES)
        assert made(both.post(POLICIES, json=suggested))["issuer"] == issuer
        assert both.exchange(token(), **body).status_code == 200


def test_wrong_issuer_shows_both_sides(both):
    """The sender sees the token's issuer, truncated and cleaned; the message, which is logged, omits it."""
    for iss, shown in (
        (ACME, ACME),
        (None, None),
        ("https://\n" + "x" * 200, "https://" + "x" * 92 + "…"),
    ):
        with capture_logs() as logged:
            refused = both.exchange(both.github_token(iss=iss))
        details = {"reason": "wrong_issuer", "issuer": shown, "expectedIssuers": [GITHUB, GHES]}
        assert_refused(refused, 401, "INVALID_OIDC_TOKEN", details)
        assert GITHUB in refused.json["message"]
        assert GHES in refused.json["message"]
        assert "xxx" not in str(logged) + refused.json["message"]


def test_simulation_knows_the_issuers(both):
    """Claims belong to the first issuer or the one in `iss`, a token to its own issuer."""
    both.policy(issuer=GHES)
    claims = {
        "repository": REPOSITORY,
        "repository_id": "1",
        "repository_owner_id": "2",
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "event_name": "push",
    }

    def allowed(**body):
        return good(both.post(f"{POLICIES}/simulate", json=body))["allowed"]

    assert not allowed(claims=claims)
    assert allowed(claims={**claims, "iss": GHES})
    assert allowed(token=ghes_token(both))
    assert not allowed(token=both.github_token())


@pytest.mark.parametrize("issuer", ["https://else.example", "", f"{GITHUB}/"])
def test_simulation_refuses_another_issuer_as_the_exchange_does(both, issuer):
    """A policy of the first issuer never allows a run of an issuer that is not configured."""
    both.policy()
    claims = {**claims_of(both.github_token()), "iss": issuer}
    runs = [{"claims": claims}, {"claims": {**claims, "iss": GITHUB}}]

    refused, allowed = good(both.post(f"{POLICIES}/simulate", json={"runs": runs}))["data"]

    assert (refused["allowed"], refused["code"], refused["reason"]) == (
        False,
        "INVALID_OIDC_TOKEN",
        "wrong_issuer",
    )
    assert allowed["allowed"] is True


def test_ready_shows_each_issuer(both, keys_of_each):
    """`issuerKeys` is the worst state among the issuers."""
    keys_of_each[GHES].reachable = False

    ready = good(both.get("/ready"))

    assert {issuer: keys["state"] for issuer, keys in ready["issuers"].items()} == {
        GITHUB: "fresh",
        GHES: "missing",
    }
    assert ready["issuerKeys"]["state"] == "missing"
    assert ready["policiesOfOtherIssuers"] == {}


# --- policies of an issuer that is not configured


def test_policies_of_other_issuers_are_counted(both):
    """Policies of unconfigured issuers are counted at startup and in /ready."""
    both.policy(issuer=GHES)
    both.policy(issuer=GHES, branch="main")
    both.policy()

    with capture_logs() as logged:
        prepare(Settings.from_environ({"SENTRYAGENT_DATABASE_URL": both.url}))

    (warning,) = (it for it in logged if "policies" in it)
    assert (warning["log_level"], warning["policies"], warning["issuers"]) == ("warning", 2, {GHES: 2})
    alone = both.with_settings()
    ready = alone.get("/ready")
    assert (ready.status_code, ready.json["policiesOfOtherIssuers"]) == (200, {GHES: 2})


def test_refusal_that_they_explain(both):
    """After an enterprise turns on its own issuer, the refusal says why the old policies match nothing."""
    agent_id, _ = both.trusted_agent(branch="main")
    acme = both.with_settings(GITHUB_ISSUER=ACME)
    token = both.github_token(iss=ACME)

    refused = acme.exchange(token, agentId=agent_id)

    assert_refused(refused, 403, "TRUST_POLICY_VIOLATION")
    assert refused.json["message"].startswith(
        "Trust policy violation: no trust policy of octo-org/hello-agent"
    )
    assert "`sentryagent-idp policies move-issuer`" in refused.json["message"]
    assert GITHUB not in refused.json["message"].replace(ACME, "")
    assert refused.json["details"]["nearestPolicies"] == []
    simulated = good(acme.post(f"{POLICIES}/simulate", json={"token": token, "agentId": agent_id}))
    assert "move-issuer" in simulated["reason"]


@pytest.mark.parametrize(
    ("theirs", "explains"),
    [({}, True), ({"branch": "main"}, True), ({"branch": "other"}, False), ({"enabled": False}, False)],
)
def test_refusal_that_they_do_not_explain(both, theirs, explains):
    """If the name has policies of the run's issuer, others count only if one of them would allow the run."""
    agent_id, _ = both.trusted_agent(**theirs)
    acme = both.with_settings(GITHUB_ISSUER=ACME)
    acme.policy(agentId=agent_id, branch="release")

    refused = acme.exchange(both.github_token(iss=ACME), agentId=agent_id)

    assert_refused(refused, 403, "BRANCH_NOT_PERMITTED")
    assert ("move-issuer" in refused.json["message"]) is explains


def test_policies_of_configured_issuers_explain_nothing(both):
    """The same name on another GitHub may have another owner, so its policies are not mentioned."""
    both.policy(issuer=GHES)

    assert "issuer" not in both.exchange().json["message"]


# --- move-issuer


def move(provider, source, target, **variables):
    return run(
        *("policies", "move-issuer", "--from", source, "--to", target),
        DATABASE_URL=provider.url,
        **variables,
    )


def test_move_issuer(any_provider):
    """All policies of an issuer move with their pins, apply at once, and get an audit record each."""
    both = any_provider
    _, policy = both.trusted_agent(repositoryId="1", repositoryOwnerId="2")
    other = both.policy(repository="octo-org/other", trustRegistered=True)
    acme = both.with_settings(GITHUB_ISSUER=ACME)

    moved = move(both, GITHUB, ACME, GITHUB_ISSUER=ACME)

    assert (moved.exit_code, moved.stdout) == (0, f"moved 2 policies to {ACME}\n")
    assert moved.stderr == ""
    after = good(acme.get(f"{POLICIES}/{policy['id']}"))
    assert after == {**policy, "issuer": ACME, "version": 2, "updatedAt": after["updatedAt"]}
    assert after["updatedAt"] != policy["updatedAt"]
    records = acme.audit(action="policy.updated")
    assert {it["policyId"] for it in records} == {policy["id"], other["id"]}
    assert {it["actor"] for it in records} == {"admin-cli"}
    assert records[0]["details"]["changed"] == {"issuer": {"before": GITHUB, "after": ACME}}
    assert acme.get("/ready").json["policiesOfOtherIssuers"] == {}
    again = move(both, GITHUB, ACME)
    assert (again.exit_code, again.stdout) == (0, f"nothing to do: {GITHUB} has no policies\n")


def test_moved_policies_let_runs_in(both):
    """A replica no longer uses its snapshot of the old issuer's policies."""
    agent_id, _ = both.trusted_agent()
    moving = both.with_settings(GITHUB_ISSUER=f"{GITHUB},{ACME}")
    for _ in range(2):
        assert moving.exchange(agentId=agent_id).status_code == 200

    assert move(both, GITHUB, ACME, GITHUB_ISSUER=f"{GITHUB},{ACME}").exit_code == 0

    assert_refused(moving.exchange(agentId=agent_id), 403, "TRUST_POLICY_VIOLATION")
    assert moving.exchange(both.github_token(iss=ACME), agentId=agent_id).status_code == 200


def test_move_to_an_issuer_with_an_equal_policy(both):
    """Nothing moves if one policy would equal an existing one; the error names both."""
    first = both.policy(repository="octo-org/first")
    policy = both.policy()
    equal = both.policy(issuer=GHES)

    refused = move(both, GITHUB, GHES)

    assert_fails(refused, f"Nothing was moved: the policy {policy['id']}")
    assert equal["id"] in refused.stderr
    assert good(both.get(f"{POLICIES}/{first['id']}"))["issuer"] == GITHUB
    assert both.audit(action="policy.updated") == []


@pytest.mark.parametrize(
    ("source", "target", "cause"),
    [
        (GITHUB, GITHUB, "--to: it must differ from --from"),
        (GITHUB, "https://github.com", "--to: write the issuer exactly as in its tokens"),
        (GITHUB, "acme", "--to: it must be a URL"),
        (GITHUB, f"{ACME},{GHES}", "--to: name a single issuer"),
    ],
)
def test_move_to_what_is_no_other_issuer(both, source, target, cause):
    """An unusable target is refused in one line, and nothing moves."""
    both.policy()
    assert_fails(move(both, source, target), cause)


def test_move_to_an_issuer_that_is_not_configured_here(both):
    """The target may be configured only where the provider runs: the command continues with a warning."""
    both.policy()

    moved = move(both, GITHUB, ACME)

    assert (moved.exit_code, moved.stdout) == (0, f"moved 1 policy to {ACME}\n")
    assert moved.stderr == (
        "sentryagent-idp: SENTRYAGENT_GITHUB_ISSUER does not list the new issuer here; "
        "the policies match nothing until the provider's does\n"
    )


# --- agents of repositories


def bootstrap(both, token):
    return bearer(good(both.exchange(token))["access_token"])


def seen(both, headers):
    return [it["email"] for it in good(both.get(AGENTS, headers=headers))["data"]]


def test_agents_of_a_repository_with_the_same_id_elsewhere(both):
    """Issuers assign the same ids, so a repository reaches only agents registered under its own issuer (B16)."""
    both.policy()
    both.policy(issuer=GHES)
    here, there = bootstrap(both, both.github_token()), bootstrap(both, ghes_token(both))

    agent = both.agent("here@octo-org.example", headers=here)

    path = f"{AGENTS}/{agent['agentId']}"
    assert (seen(both, here), seen(both, there)) == (["here@octo-org.example"], [])
    assert_refused(both.get(path, headers=there), 404, "AGENT_NOT_FOUND")
    assert_refused(both.delete(path, headers=there), 404, "AGENT_NOT_FOUND")
    taken = both.post(AGENTS, json={"email": "here@octo-org.example"}, headers=there)
    assert_refused(taken, 409, "AGENT_ALREADY_EXISTS", {})
    assert good(both.get(path, headers=here))["registeredBy"].keys() == {
        "provider",
        "repository",
        "repositoryId",
    }


def test_agents_registered_before_the_second_issuer(provider, both):
    """An agent has the issuer of its policy, even if it was registered while there was only one issuer."""
    provider.policy()
    provider.agent(headers=bootstrap(provider, provider.github_token()))
    both.policy(issuer=GHES)

    assert seen(both, bootstrap(both, both.github_token())) == ["bot@octo-org.example"]
    assert seen(both, bootstrap(both, ghes_token(both))) == []


def test_agents_move_with_the_policies(both):
    """A repository keeps its agents when its organisation gets its own issuer."""
    both.policy()
    both.agent(headers=bootstrap(both, both.github_token()))
    moving = both.with_settings(GITHUB_ISSUER=f"{ACME},{GITHUB}")

    assert move(both, GITHUB, ACME).exit_code == 0

    assert seen(moving, bootstrap(moving, moving.github_token(iss=ACME))) == ["bot@octo-org.example"]


def test_several_issuers_are_told_apart_in_token_and_audit(provider, both):
    """With several issuers, token and audit name the issuer, because names repeat; with one, nothing changes."""
    provider.policy()
    both.policy(issuer=GHES)
    alone = good(provider.exchange())["access_token"]
    token = good(both.exchange(ghes_token(both)))["access_token"]
    assert both.exchange(ghes_token(both), agentId=NOBODY).status_code == 403

    assert claims_of(token)["provenance"]["issuer"] == GHES
    assert "issuer" not in claims_of(alone)["provenance"]
    issued = [it["details"].get("iss") for it in both.audit(action="token.issued")]
    assert issued == [GHES, None]
    assert both.audit(action="token.refused")[0]["details"]["iss"] == GHES
