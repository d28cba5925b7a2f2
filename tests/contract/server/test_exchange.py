"""Section 3 of the contract: `POST /oidc/token` in JSON, from the answer's members to every row of the refusals."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import jwt
import pytest

from mock_idp.job import Job

PROVIDER = "https://idp.example.com"
NOBODY = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
REPOSITORY = "octo-org/hello-agent"
POLICIES = "/api/v1/oidc/trust-policies"
NOON = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp())


def claims_of(answer):
    return jwt.decode(answer.json["access_token"], options={"verify_signature": False})


def trusted_agent(provider, **policy):
    agent = provider.agent()["agentId"]
    return agent, provider.policy(agentId=agent, **policy)


def replaced(provider, policy, **members):
    """PUT the policy as it was, with these members changed."""
    answer = provider.http.put(
        f"{POLICIES}/{policy['id']}", json={**policy, **members}, headers=provider.admin
    )
    assert answer.status_code == 200, answer.text
    return answer.json


# --- what is given


def test_bootstrap_token(provider):
    """Without an agentId the token lets the repository register agents, under its name as GitHub spells it."""
    policy = provider.policy(repository="Octo-Org/Hello-Agent")

    answer = provider.exchange()

    assert answer.status_code == 200
    assert answer.json | {"access_token": ""} == {
        "access_token": "",
        "token_type": "Bearer",
        "expires_in": 3600,
        "expires_at": "2026-11-24T13:00:00Z",
        "scope": "agents:write",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    assert answer.headers["Cache-Control"] == "no-store"
    claims = claims_of(answer)
    assert claims["sub"] == claims["client_id"] == f"repo:{REPOSITORY}"
    assert claims["provenance"]["policy_id"] == policy["id"]


def test_agent_token_is_as_rfc_9068_says(provider):
    """The token has the header and claims of an access token, and the run it was issued to."""
    agent, policy = trusted_agent(provider)
    job = Job()

    answer = provider.exchange(provider.github_token(job=job), agentId=agent)

    header = jwt.get_unverified_header(answer.json["access_token"])
    claims = claims_of(answer)
    assert header.keys() == {"alg", "typ", "kid"}
    assert (header["alg"], header["typ"]) == ("ES256", "at+jwt")
    assert len(claims.pop("jti")) >= 22
    assert claims == {
        "iss": PROVIDER,
        "aud": PROVIDER,
        "sub": agent,
        "client_id": agent,
        "scope": "agents:read",
        "iat": NOON,
        "nbf": NOON,
        "exp": NOON + 3600,
        "provenance": {
            "provider": "github",
            "repository": REPOSITORY,
            "repository_id": job.repository_id,
            "ref": "refs/heads/main",
            "sha": job.sha,
            "workflow_ref": job.workflow_ref,
            "run_id": job.run_id,
            "run_attempt": "1",
            "policy_id": policy["id"],
        },
    }


def test_token_verifies_with_the_published_keys(provider):
    """Whoever has our key set and name can check the token (RFC 7517, RFC 8414)."""
    agent, _ = trusted_agent(provider)
    token = provider.exchange(agentId=agent).json["access_token"]
    key_set = jwt.PyJWKSet.from_dict(provider.http.get("/.well-known/jwks.json").json)

    key = key_set[jwt.get_unverified_header(token)["kid"]]

    options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    claims = jwt.decode(
        token, key.key, algorithms=["ES256"], audience=PROVIDER, issuer=PROVIDER, options=options
    )
    assert claims["sub"] == agent


def test_token_audience_is_the_configured_one(provider):
    """`SENTRYAGENT_TOKEN_AUDIENCE` goes into our tokens, `SENTRYAGENT_OIDC_AUDIENCE` is asked of GitHub's."""
    provider.policy()
    other = provider.with_settings(
        TOKEN_AUDIENCE="https://api.example.com", OIDC_AUDIENCE="https://hello.example.com"
    )

    given = other.exchange(provider.github_token(aud="https://hello.example.com"))
    refused = other.exchange(provider.github_token())

    assert claims_of(given)["aud"] == "https://api.example.com"
    assert claims_of(given)["iss"] == PROVIDER
    assert refused.json["details"] == {
        "reason": "wrong_audience",
        "expectedAudience": "https://hello.example.com",
    }
    assert other.http.get("/api/v1/oidc/audience").json == {"audience": "https://hello.example.com"}


def test_both_forms_of_sub_and_none_that_is_known_decide_alike(provider):
    """`sub` never decides: GitHub's forms of it and customised ones get the same token."""
    provider.policy(branch="main")

    for sub in (
        "repo:octo-org/hello-agent:ref:refs/heads/main",
        "repo:octo-org@1/hello-agent@2:x",
        "anything",
    ):
        assert provider.exchange(provider.github_token(sub=sub)).status_code == 200


@pytest.mark.parametrize(
    ("token_ttl", "max_ttl", "expires_in", "lifetime"),
    [
        (None, None, None, 3600),
        (None, 600, None, 600),
        (None, None, 300, 300),
        (None, 600, 300, 300),
        (None, 300, 600, 300),
        (None, 100_000, None, 3600),
        (None, None, 100_000, 3600),
        (None, None, 10**18, 3600),
        ("120", None, None, 120),
        ("120", 600, 600, 120),
        ("120", 60, None, 60),
        ("7200", None, None, 7200),
        (None, None, 1, 1),
    ],
)
def test_lifetime_is_the_shortest_of_three(provider, token_ttl, max_ttl, expires_in, lifetime):
    """The policy's maxTtl and the request's expiresIn only shorten; what is larger is cut, not refused."""
    agent, _ = trusted_agent(provider, maxTtl=max_ttl)
    process = provider if token_ttl is None else provider.with_settings(TOKEN_TTL=token_ttl)

    answer = process.exchange(agentId=agent, expiresIn=expires_in)

    claims = claims_of(answer)
    assert claims["exp"] - claims["iat"] == answer.json["expires_in"] == lifetime
    assert datetime.fromisoformat(answer.json["expires_at"]).timestamp() == claims["exp"]


@pytest.mark.parametrize(
    ("scopes", "asked", "given"),
    [
        (None, None, "agents:read"),
        (["agents:read", "tokens:read"], None, "agents:read tokens:read"),
        (["agents:read", "tokens:read"], "tokens:read", "tokens:read"),
        (["agents:read", "tokens:read"], "tokens:read agents:read", "tokens:read agents:read"),
        (["agents:write"], "agents:read", "agents:read"),
        (["agents:read"], "agents:read agents:read", "agents:read"),
    ],
)
def test_scope_is_the_policys_or_the_part_asked_for(provider, scopes, asked, given):
    """The token has all that the policy gives, or what was asked for of it."""
    agent, _ = trusted_agent(provider, scopes=scopes)

    answer = provider.exchange(agentId=agent, scope=asked)

    assert answer.json["scope"] == claims_of(answer)["scope"] == given


@pytest.mark.parametrize("asked", ["agents:write", "agents:read audit:read", "nothing", "AGENTS:READ"])
def test_scope_beyond_the_policy_is_refused(provider, refused, asked):
    """More than the policy gives is 403 with what it does give, and burns nothing."""
    agent, _ = trusted_agent(provider)
    token = provider.github_token()

    refused(
        provider.exchange(token, agentId=agent, scope=asked),
        403,
        "SCOPE_NOT_PERMITTED",
        {"permitted": ["agents:read"]},
    )
    assert provider.exchange(token, agentId=agent).status_code == 200


def test_scopes_of_a_bootstrap_policy_do_not_reach_its_tokens(provider, refused):
    """A bootstrap token has agents:write, whatever the policy lists."""
    provider.policy(scopes=["agents:read", "tokens:read"])

    assert provider.exchange().json["scope"] == "agents:write"
    refused(
        provider.exchange(scope="tokens:read"), 403, "SCOPE_NOT_PERMITTED", {"permitted": ["agents:write"]}
    )


# --- what the policy asks

CALLED = "octo-org/automation/.github/workflows/deploy.yml@refs/heads/main"


@pytest.mark.parametrize(
    ("condition", "passing", "failing"),
    [
        ({"branch": "main"}, {}, {"ref": "refs/heads/dev"}),
        ({"branch": "release/*"}, {"ref": "refs/heads/release/1"}, {"ref": "refs/heads/release/1/x"}),
        ({"branch": "release/**"}, {"ref": "refs/heads/release/1/x"}, {"ref": "refs/heads/releases"}),
        ({"branch": "main"}, {}, {"ref": "refs/tags/main", "ref_type": "tag"}),
        ({"branch": "main"}, {}, {"ref": "refs/heads/main", "ref_type": "tag"}),
        ({"branch": "main"}, {}, {"ref": "refs/heads/Main"}),
        ({"branch": "a.b"}, {"ref": "refs/heads/a.b"}, {"ref": "refs/heads/axb"}),
        ({"tag": "v*"}, {"ref": "refs/tags/v1", "ref_type": "tag"}, {"ref": "refs/heads/v1"}),
        (
            {"tag": "v1"},
            {"ref": "refs/tags/v1", "ref_type": "tag"},
            {"ref": "refs/tags/v1/x", "ref_type": "tag"},
        ),
        ({"environment": "Production"}, {"environment": "pRODUCTION"}, {"environment": "staging"}),
        ({"environment": "production"}, {"environment": "production"}, {}),
        ({"environment": "production"}, {"environment": "production"}, {"environment": ""}),
        ({"workflow": "ci.yml"}, {}, {"job": Job(workflow="other.yml")}),
        (
            {"workflow": "ci.yml"},
            {},
            {"workflow_ref": "octo-evil/x/.github/workflows/ci.yml@refs/heads/main"},
        ),
        ({"calledWorkflow": CALLED}, {"job": Job(called_workflow=CALLED)}, {}),
        ({"calledWorkflow": CALLED}, {"job_workflow_ref": CALLED}, {"job_workflow_ref": CALLED + "x"}),
        ({"actorIds": ["1", "2"]}, {"actor_id": "2"}, {"actor_id": "3"}),
        ({"actorIds": ["1"]}, {"actor_id": "1"}, {"actor_id": None}),
        ({"runnerEnvironment": "github-hosted"}, {}, {"runner_environment": "self-hosted"}),
        ({"runnerEnvironment": "self-hosted"}, {"runner_environment": "self-hosted"}, {}),
        (
            {"visibility": "private"},
            {"repository_visibility": "private"},
            {"repository_visibility": "public"},
        ),
        ({"events": ["push"]}, {}, {"event_name": "workflow_dispatch"}),
        ({"events": ["pull_request_target"]}, {"event_name": "pull_request_target"}, {}),
        ({"events": ["pull_request"]}, {"job": Job(event="pull_request")}, {}),
        ({}, {}, {"ref": "refs/pull/1/merge"}),
        ({}, {}, {"event_name": "pull_request_target"}),
        ({}, {}, {"event_name": "pull_request", "ref": "refs/heads/main"}),
        ({}, {}, {"event_name": "workflow_run"}),
        ({}, {}, {"event_name": "issue_comment"}),
        ({}, {}, {"repository": "octo-org/other"}),
        ({}, {"repository": "OCTO-org/Hello-Agent"}, {"repository": "octo-org/hello-agent2"}),
        ({"branch": "main", "environment": "prod"}, {"environment": "prod"}, {"environment": "dev"}),
        ({"enabled": True}, {}, None),
        ({"expiresAt": "2026-11-24T12:00:01Z"}, {}, None),
    ],
)
def test_each_condition_lets_in_and_keeps_out(provider, condition, passing, failing):
    """For each condition one run that passes, and one that fails because of it and of nothing else."""
    provider.policy(**condition)

    assert provider.exchange(provider.github_token(**passing)).status_code == 200
    if failing is not None:
        refusal = provider.exchange(provider.github_token(**failing))
        assert refusal.status_code == 403, refusal.text
        assert len(refusal.json["details"]["nearestPolicies"]) <= 1


@pytest.mark.parametrize("change", [{"enabled": False}, {"expiresAt": "2026-11-24T12:00:00Z"}])
def test_a_policy_that_is_off_or_over_lets_nobody_in(provider, refused, change):
    """Disabled and expired policies are no candidates, from the next exchange on."""
    policy = provider.policy()
    replaced(provider, policy, **change)

    failed = refused(provider.exchange(), 403, "TRUST_POLICY_VIOLATION")["details"]["nearestPolicies"][0][
        "failed"
    ]
    assert [it["condition"] for it in failed] == list(change)


def test_a_policy_expires_while_the_provider_runs(provider):
    """An `expiresAt` is exclusive, by the provider's clock."""
    provider.policy(expiresAt="2026-11-24T12:01:00Z")

    seen = []
    for _ in range(2):
        seen.append(provider.exchange().status_code)
        provider.clock.advance(60)
    assert seen == [200, 403]


def test_changes_hold_for_the_next_exchange_in_every_process(provider):
    """Policies are asked of the database, not of a cache."""
    policy = provider.policy()
    other = provider.with_settings()
    assert other.exchange().status_code == 200
    replaced(
        provider, provider.http.get(f"{POLICIES}/{policy['id']}", headers=provider.admin).json, branch="dev"
    )
    assert other.exchange().status_code == 403
    provider.http.delete(f"{POLICIES}/{policy['id']}", headers=provider.admin)
    assert other.exchange().json["details"]["nearestPolicies"] == []


def test_the_most_specific_policy_decides(provider):
    """Most conditions, then an exact branch over a wildcard, then the oldest; scopes are not pooled."""
    agent = provider.agent()["agentId"]
    ids = {}
    for name, members in (
        ("any", {"scopes": ["agents:read", "tokens:read"]}),
        ("wildcard", {"branch": "m*"}),
        ("exact", {"branch": "main"}),
        ("event", {"events": ["push"]}),
        ("two", {"branch": "m*", "events": ["push"]}),
    ):
        ids[provider.policy(agentId=agent, **members)["id"]] = name
        provider.clock.advance(1)

    decided = []
    for _ in range(5):
        answer = provider.exchange(agentId=agent, dryRun=True).json
        decided.append(ids[answer["policyId"]])
        assert answer["scope"] == ("agents:read tokens:read" if decided[-1] == "any" else "agents:read")
        provider.http.delete(f"{POLICIES}/{answer['policyId']}", headers=provider.admin)
    assert decided == ["two", "exact", "wildcard", "event", "any"]


def test_a_policy_is_for_exactly_one_agent_or_for_none(provider, refused):
    """A bootstrap policy gives no agent's token, and an agent's policy neither a bootstrap nor another's."""
    agent = provider.agent()["agentId"]
    other = provider.agent("other@octo-org.example")["agentId"]
    policy = provider.policy()
    refused(provider.exchange(agentId=agent), 403, "TRUST_POLICY_VIOLATION")
    provider.http.delete(f"{POLICIES}/{policy['id']}", headers=provider.admin)
    provider.policy(agentId=agent)

    refused(provider.exchange(), 403, "TRUST_POLICY_VIOLATION")
    refused(provider.exchange(agentId=other), 403, "TRUST_POLICY_VIOLATION")
    assert provider.exchange(agentId=agent.upper()).status_code == 200


# --- what is refused


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "token"),
        ({"token": None}, "token"),
        ({"token": 1}, "token"),
        ({"token": "x", "agentId": "x"}, "agentId"),
        ({"token": "x", "agentId": ""}, "agentId"),
        ({"token": "x", "agentId": NOBODY.replace("-", "")}, "agentId"),
        ({"token": "x", "agentId": f"{{{NOBODY}}}"}, "agentId"),
        ({"token": "x", "agentId": 1}, "agentId"),
        ({"token": "x", "provider": "gitlab"}, "provider"),
        ({"token": "x", "provider": "GitHub"}, "provider"),
        ({"token": "x", "scope": ""}, "scope"),
        ({"token": "x", "scope": " agents:read"}, "scope"),
        ({"token": "x", "scope": "agents:read  tokens:read"}, "scope"),
        ({"token": "x", "scope": "agents:read\n"}, "scope"),
        ({"token": "x", "scope": 'a"b'}, "scope"),
        ({"token": "x", "scope": "a\u0000"}, "scope"),
        ({"token": "x", "scope": "é"}, "scope"),
        ({"token": "x", "scope": "x" * 65}, "scope"),
        ({"token": "x", "scope": "x " * 600 + "x"}, "scope"),
        ({"token": "x", "scope": ["agents:read"]}, "scope"),
        ({"token": "x", "expiresIn": 0}, "expiresIn"),
        ({"token": "x", "expiresIn": -1}, "expiresIn"),
        ({"token": "x", "expiresIn": "60"}, "expiresIn"),
        ({"token": "x", "expiresIn": True}, "expiresIn"),
        ({"token": "x", "expiresIn": 1.0}, "expiresIn"),
        ({"token": "x", "expiresIn": 10**19}, "expiresIn"),
        ({"token": "x", "dryRun": 1}, "dryRun"),
        ({"token": "x", "dryRun": "true"}, "dryRun"),
        ({"token": "x", "agent_id": NOBODY}, "agent_id"),
        ({"token": "x", "subject_token": "x"}, "subject_token"),
    ],
)
def test_malformed_body_is_400(still_provider, invalid, body, field):
    """A member of the wrong type or form is named, before the token is looked at."""
    assert invalid(still_provider.http.post("/api/v1/oidc/token", json=body), field)


def _own_token(provider):
    """A token of ours, as a chained exchange would send it."""
    provider.policy()
    return provider.exchange().json["access_token"]


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("malformed", {"header": {"jku": "https://octo-evil.example"}}),
        ("malformed", {"header": {"crit": []}}),
        ("malformed", {"header": {"kid": None}}),
        ("malformed", {"header": {"kid": "../x"}}),
        ("malformed", {"fault": "empty-signature"}),
        ("malformed", {"fault": "duplicate-member"}),
        ("malformed", {"exp": "1"}),
        ("malformed", {"exp": 1.5}),
        ("malformed", {"repository": 1}),
        ("malformed", {"exp": "1", "header": {"typ": "at+jwt"}}),
        ("wrong_type", {"header": {"typ": "at+jwt"}}),
        ("wrong_type", {"header": {"typ": "jwt", "alg": "HS256"}}),
        ("algorithm_not_allowed", {"header": {"alg": "HS256"}}),
        ("algorithm_not_allowed", {"header": {"alg": "rs256"}, "iss": "x"}),
        ("wrong_issuer", {"iss": None, "fault": "unknown-kid"}),
        ("wrong_issuer", {"iss": "https://token.actions.githubusercontent.com/"}),
        ("unknown_key", {"fault": "unknown-kid", "sub": None}),
        ("bad_signature", {"fault": "bad-signature", "sub": None}),
        *(
            ("missing_claim", {name: None, "aud": None if name == "aud" else "x"})
            for name in (
                "sub",
                "aud",
                "exp",
                "iat",
                "nbf",
                "jti",
                "repository",
                "repository_id",
                "repository_owner_id",
                "ref",
                "event_name",
            )
        ),
        ("wrong_audience", {"aud": "x", "exp": NOON - 31}),
        ("wrong_audience", {"aud": [PROVIDER]}),
        ("expired", {"exp": NOON - 30, "nbf": NOON + 31}),
        ("not_yet_valid", {"nbf": NOON + 31}),
        ("not_yet_valid", {"iat": NOON + 31}),
        ("too_old", {"iat": NOON - 601}),
    ],
)
def test_unacceptable_token_is_401_with_its_reason(still_provider, refused, reason, changes):
    """The first failing check names the reason, in the contract's order."""
    answer = still_provider.exchange(still_provider.github_token(**changes))

    details = {"reason": reason} | ({"expectedAudience": PROVIDER} if reason == "wrong_audience" else {})
    refused(answer, 401, "INVALID_OIDC_TOKEN", details)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="sentryagent"'


@pytest.mark.parametrize(
    "changes",
    [{"exp": NOON - 29}, {"nbf": NOON + 30}, {"iat": NOON + 30}, {"iat": NOON - 600}, {"exp": NOON + 21_600}],
)
def test_times_within_leeway_are_good(provider, changes):
    """30 s of leeway for exp, nbf and iat, none for the age; the lifetime is not limited."""
    provider.policy()

    assert provider.exchange(provider.github_token(**changes)).status_code == 200


def test_max_age_is_configurable(provider, refused):
    """`SENTRYAGENT_OIDC_MAX_AGE` says how old a token may be."""
    provider.policy()
    strict = provider.with_settings(OIDC_MAX_AGE="60")

    assert strict.exchange(provider.github_token(iat=NOON - 60)).status_code == 200
    refused(
        strict.exchange(provider.github_token(iat=NOON - 61)),
        401,
        "INVALID_OIDC_TOKEN",
        {"reason": "too_old"},
    )


def test_missing_ref_type_matters_only_where_a_condition_needs_it(provider, refused):
    """Without ref_type a policy for any branch lets in; one that names a branch makes it a missing claim."""
    policy = provider.policy()
    assert provider.exchange(provider.github_token(ref_type=None)).status_code == 200
    replaced(provider, policy, branch="main")

    answer = provider.exchange(provider.github_token(ref_type=None))

    refused(answer, 401, "INVALID_OIDC_TOKEN", {"reason": "missing_claim"})


def test_own_token_is_no_identity(provider, refused):
    """A token of ours cannot be exchanged for another (federation-security B15)."""
    answer = provider.exchange(_own_token(provider))

    assert refused(answer, 401, "INVALID_OIDC_TOKEN")["details"]["reason"] in {"wrong_type", "wrong_issuer"}


@pytest.mark.parametrize(
    "token", ["", "x", "a.b", "a.b.c.d.e", " ", "a.b.c ", "é.b.c", "x" * 16_385, "x" * 32_000]
)
def test_text_that_is_no_token_is_malformed(still_provider, refused, token):
    """Whatever text stands for the token, the refusal is a 401 for its reason."""
    answer = still_provider.http.post("/api/v1/oidc/token", json={"token": token})

    refused(answer, 401, "INVALID_OIDC_TOKEN", {"reason": "malformed"})


def test_a_token_is_exchanged_once(provider, refused):
    """The second use is a replay, also in a dry run, for another agent, and in another process."""
    agent, _ = trusted_agent(provider)
    provider.policy()
    token = provider.github_token()
    assert provider.exchange(token, agentId=agent).status_code == 200

    for again in (
        provider.exchange(token, agentId=agent),
        provider.exchange(token),
        provider.exchange(token, dryRun=True),
        provider.with_settings().exchange(token),
    ):
        refused(again, 401, "INVALID_OIDC_TOKEN", {"reason": "replayed"})


def test_of_many_at_one_moment_one_wins(provider):
    """N parallel exchanges of one token give one access token, and N - 1 replays (R-RPL-1)."""
    provider.policy()
    token = provider.github_token()

    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda _: provider.app.test_client().post("/api/v1/oidc/token", json={"token": token}),
                range(16),
            )
        )

    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 15
    assert {it.json["details"]["reason"] for it in answers if it.status_code == 401} == {"replayed"}


def test_a_refusal_burns_nothing(provider):
    """A token that a policy refused can be used once the policy is corrected."""
    policy = provider.policy(branch="dev")
    token = provider.github_token()
    assert provider.exchange(token).status_code == 403
    replaced(provider, policy, branch="main")

    assert provider.exchange(token).status_code == 200


def test_dry_run_tells_and_changes_nothing(provider):
    """A dry run decides as the exchange would; it burns, pins, issues and marks nothing."""
    agent, policy = trusted_agent(provider, maxTtl=60)
    token = provider.github_token()

    answer = provider.exchange(token, agentId=agent, dryRun=True)

    assert answer.status_code == 200
    assert answer.json == {
        "dryRun": True,
        "allowed": True,
        "scope": "agents:read",
        "expires_in": 60,
        "policyId": policy["id"],
    }
    assert provider.http.get(f"{POLICIES}/{policy['id']}", headers=provider.admin).json == policy
    assert provider.exchange(token, agentId=agent, dryRun=False).status_code == 200


@pytest.mark.parametrize(
    ("changes", "body", "status", "code"),
    [
        ({"ref": "refs/heads/dev"}, {}, 403, "BRANCH_NOT_PERMITTED"),
        ({}, {"agentId": NOBODY}, 403, "TRUST_POLICY_VIOLATION"),
        ({}, {"scope": "audit:read"}, 403, "SCOPE_NOT_PERMITTED"),
        ({"fault": "bad-signature"}, {}, 401, "INVALID_OIDC_TOKEN"),
    ],
)
def test_dry_run_refuses_as_the_exchange_does(provider, refused, changes, body, status, code):
    """What the exchange would refuse, a dry run refuses alike."""
    provider.policy(branch="main")

    for dry_run in (True, False):
        refused(provider.exchange(provider.github_token(**changes), dryRun=dry_run, **body), status, code)


def test_unreachable_issuer_is_503(provider, refused):
    """Without any key to check with, the client is told to try again."""
    provider.policy()
    provider.keys.reachable = False

    answer = provider.exchange()

    refused(answer, 503, "ISSUER_UNAVAILABLE", {})
    assert int(answer.headers["Retry-After"]) > 0


# --- explanations


def test_branch_not_permitted_explains_itself(provider, refused):
    """The refusal shows the claims, the nearest policy with its hint, and the policy that would let the run in."""
    policy = provider.policy(branch="main", workflow="ci.yml")
    token = provider.github_token(ref="refs/heads/dev", job=Job(ref="dev"))
    job = Job(ref="dev")

    refusal = refused(provider.exchange(token), 403, "BRANCH_NOT_PERMITTED")

    assert refusal["message"].startswith("Branch not permitted")
    details = refusal["details"]
    assert details.keys() == {"claims", "nearestPolicies", "suggestedPolicy"}
    assert details["claims"]["ref"] == "refs/heads/dev"
    (nearest,) = details["nearestPolicies"]
    (failed,) = nearest["failed"]
    assert (nearest["id"], nearest["matched"]) == (policy["id"], ["workflow"])
    assert (failed["condition"], failed["expected"], failed["actual"]) == ("branch", "main", "dev")
    assert failed["hint"]
    assert details["suggestedPolicy"] == {
        "provider": "github",
        "repository": REPOSITORY,
        "branch": "dev",
        "workflow": "ci.yml",
        "repositoryId": job.repository_id,
        "repositoryOwnerId": job.repository_owner_id,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ref": "refs/heads/dev"},
        {"ref": "refs/tags/v1", "ref_type": "tag"},
        {"environment": "staging"},
        {"event_name": "schedule"},
        {"repository": "octo-org/other"},
    ],
)
@pytest.mark.parametrize("with_agent", [False, True])
def test_the_suggested_policy_lets_the_run_in(provider, changes, with_agent):
    """POST details.suggestedPolicy as it is, and the same token is exchanged."""
    agent = provider.agent()["agentId"] if with_agent else None
    provider.policy(branch="release", environment="production", agentId=agent)
    token = provider.github_token(**changes)
    suggestion = provider.exchange(token, agentId=agent).json["details"]["suggestedPolicy"]

    created = provider.http.post(POLICIES, json=suggestion, headers=provider.admin)

    assert created.status_code == 201, created.text
    assert provider.exchange(token, agentId=agent).status_code == 200


@pytest.mark.parametrize(
    ("changes", "with_unknown_agent"),
    [
        ({"event_name": "pull_request"}, False),
        ({"event_name": "pull_request_target"}, False),
        ({"event_name": "workflow_run"}, False),
        ({"event_name": "issue_comment"}, False),
        ({"ref": ""}, False),
        ({"ref": "refs/heads/a*b"}, False),
        ({}, True),
    ],
)
def test_no_policy_is_suggested_for_what_none_should_let_in(provider, refused, changes, with_unknown_agent):
    """Default-denied events, unknown agents and refs that no policy can name get no suggestion."""
    provider.policy(branch="release")
    agent = NOBODY if with_unknown_agent else None

    refusal = provider.exchange(provider.github_token(**changes), agentId=agent).json

    assert refusal["details"]["suggestedPolicy"] is None, refusal


@pytest.mark.parametrize("status", ["unknown", "suspended", "decommissioned"])
def test_an_agent_that_is_not_active_gets_no_token(provider, refused, status):
    """Unknown, suspended and decommissioned agents are a trust policy violation."""
    agent, _ = trusted_agent(provider)
    if status == "suspended":
        provider.http.patch(f"/api/v1/agents/{agent}", json={"status": status}, headers=provider.admin)
    elif status == "decommissioned":
        provider.http.delete(f"/api/v1/agents/{agent}", headers=provider.admin)

    answer = provider.exchange(agentId=NOBODY if status == "unknown" else agent)

    assert refused(answer, 403, "TRUST_POLICY_VIOLATION")["message"].startswith("Trust policy violation")


def test_branch_alone_outranks_other_failures(provider, refused):
    """One candidate that fails on its branch alone makes it BRANCH_NOT_PERMITTED, whatever the others fail on."""
    provider.policy(environment="production")
    refused(provider.exchange(), 403, "TRUST_POLICY_VIOLATION")
    provider.policy(branch="dev", environment="production")
    refused(provider.exchange(), 403, "TRUST_POLICY_VIOLATION")
    provider.policy(branch="dev")
    refused(provider.exchange(), 403, "BRANCH_NOT_PERMITTED")


def test_explanations_hold_three_policies_of_the_own_repository(provider, refused):
    """At most the three nearest are shown, and never another repository's."""
    provider.policy(repository="octo-org/secret", branch="main")
    for branch in "abcde":
        provider.policy(branch=branch)
        provider.clock.advance(1)

    answer = provider.exchange()

    nearest = refused(answer, 403, "BRANCH_NOT_PERMITTED")["details"]["nearestPolicies"]
    assert [it["failed"][0]["expected"] for it in nearest] == ["a", "b", "c"]
    assert "secret" not in answer.text


@pytest.mark.parametrize("case", ["branch", "violation", "scope", "identity"])
def test_explain_off_says_the_code_and_no_more(provider, refused, case):
    """With SENTRYAGENT_EXPLAIN=off a 403 is a constant sentence, which names nothing of the policies."""
    provider.policy(branch="main", repositoryId="1" if case == "identity" else None)
    silent = provider.with_settings(EXPLAIN="off")
    changes = {"branch": {"ref": "refs/heads/dev"}, "violation": {"event_name": "workflow_run"}}.get(case, {})
    body = {"scope": "audit:read"} if case == "scope" else {}
    code = {
        "branch": "BRANCH_NOT_PERMITTED",
        "violation": "TRUST_POLICY_VIOLATION",
        "scope": "SCOPE_NOT_PERMITTED",
        "identity": "IDENTITY_CHANGED",
    }[case]

    loud = refused(provider.exchange(provider.github_token(**changes), **body), 403, code)
    quiet = refused(silent.exchange(provider.github_token(**changes), **body), 403, code, {})

    assert quiet["message"] != loud["message"]
    assert not re.search(r"main|dev|octo|audit|agents:", quiet["message"])


# --- ids


def test_first_exchange_pins_the_ids(provider):
    """The first success writes the repository's ids into every policy of its name, and raises their version."""
    _, unused = trusted_agent(provider)
    policy = provider.policy()
    job = Job()
    assert policy["repositoryId"] is policy["repositoryOwnerId"] is None

    answer = provider.exchange(provider.github_token(job=job))

    for stored in (policy, unused):
        pinned = provider.http.get(f"{POLICIES}/{stored['id']}", headers=provider.admin)
        assert pinned.json["repositoryId"] == job.repository_id
        assert pinned.json["repositoryOwnerId"] == job.repository_owner_id
        assert pinned.json["version"] == 2
        assert pinned.headers["ETag"] == '"2"'
    records = provider.audit(action="policy.pinned")
    assert {record["policyId"] for record in records} == {policy["id"], unused["id"]}
    assert {record["requestId"] for record in records} == {answer.headers["X-Request-Id"]}


@pytest.mark.parametrize("pin", [{"repositoryId": "1"}, {"repositoryOwnerId": "1"}])
@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({}, {}),
        ({"ref": "refs/heads/dev"}, {}),
        ({"event_name": "workflow_run"}, {}),
        ({}, {"agentId": NOBODY}),
        ({}, {"scope": "audit:read"}),
    ],
)
def test_other_ids_outrank_every_other_refusal(provider, refused, pin, changes, body):
    """A name under other ids is IDENTITY_CHANGED, whatever else would fail, and shows nothing."""
    provider.policy(branch="main", **pin)

    answer = provider.exchange(provider.github_token(**changes), **body)

    refused(answer, 403, "IDENTITY_CHANGED", {})


def test_one_pinned_policy_guards_all_of_its_name(provider, refused):
    """A second policy without ids is no way around the first one's."""
    policy = provider.policy(branch="main", repositoryId="1", repositoryOwnerId="2")
    other = provider.policy(branch="**")
    assert (other["repositoryId"], other["repositoryOwnerId"]) == ("1", "2")

    refused(provider.exchange(), 403, "IDENTITY_CHANGED", {})
    replaced(provider, policy, enabled=False)
    replaced(provider, other, repositoryId=None, repositoryOwnerId=None)
    assert provider.exchange().status_code == 200


def test_a_resurrected_repository_is_refused_until_an_admin_agrees(provider, refused):
    """Same name, new ids: nothing heals by itself; a PUT with null removes the pin, and it is audited."""
    policy = provider.policy()
    assert provider.exchange().status_code == 200
    stranger = {"repository_id": "999", "repository_owner_id": "998"}
    refused(provider.exchange(provider.github_token(**stranger)), 403, "IDENTITY_CHANGED", {})

    replaced(provider, policy, repositoryId=None, repositoryOwnerId=None)

    assert provider.exchange(provider.github_token(**stranger)).status_code == 200
    (record,) = provider.audit(action="policy.updated")
    assert record["details"]["changed"]["repositoryId"]["after"] is None


# --- lastUsedAt


def test_last_use_is_noted_once_a_minute(provider):
    """The time of last use is set at the first use, then at most once a minute, and changes neither version nor ETag."""
    policy = provider.policy(repositoryId=Job().repository_id, repositoryOwnerId=Job().repository_owner_id)
    noted = []
    for seconds in (0, 59, 1, 60):
        provider.clock.advance(seconds)
        assert provider.exchange().status_code == 200
        stored = provider.http.get(f"{POLICIES}/{policy['id']}", headers=provider.admin)
        noted.append(stored.json["lastUsedAt"])
        assert (stored.json["version"], stored.headers["ETag"]) == (1, '"1"')
        assert stored.json["updatedAt"] == policy["updatedAt"]

    assert policy["lastUsedAt"] is None
    assert noted == [
        "2026-11-24T12:00:00Z",
        "2026-11-24T12:00:00Z",
        "2026-11-24T12:01:00Z",
        "2026-11-24T12:02:00Z",
    ]


# --- the audit of exchanges


def test_issue_is_audited_with_both_jtis(provider):
    """The record of an exchange names run, policy and version, and both tokens by their ids."""
    agent, policy = trusted_agent(provider)
    token = provider.github_token()

    answer = provider.exchange(token, agentId=agent, expiresIn=60)

    (record,) = provider.audit(action="token.issued")
    assert record["outcome"] == "success"
    assert (record["actor"], record["agentId"], record["policyId"]) == (agent, agent, policy["id"])
    assert record["policyVersion"] == 2
    assert record["repository"] == REPOSITORY
    assert record["requestId"] == answer.headers["X-Request-Id"]
    assert record["address"] == "127.0.0.1"
    details = record["details"]
    assert details["jti"] == jwt.decode(token, options={"verify_signature": False})["jti"]
    assert details["issuedJti"] == claims_of(answer)["jti"]
    assert (details["scope"], details["expiresIn"], details["ref"]) == ("agents:read", 60, "refs/heads/main")
    assert UUID(record["eventId"])


def test_refusal_is_audited_with_its_trace(provider):
    """The record of a refusal has code and reason, and every policy that was looked at, also with explain off."""
    provider.policy(branch="dev")
    silent = provider.with_settings(EXPLAIN="off")

    answer = silent.exchange()

    (record,) = provider.audit(action="token.refused")
    assert record["outcome"] == "failure"
    assert record["requestId"] == answer.headers["X-Request-Id"]
    assert record["details"]["code"] == "BRANCH_NOT_PERMITTED"
    assert record["details"]["trace"][0]["failed"][0]["condition"] == "branch"


def test_no_token_without_its_audit_record(provider, refused, monkeypatch):
    """Where the record cannot be written, no token leaves and the GitHub token stays good (R-AUD-2)."""
    provider.policy()
    token = provider.github_token()

    def fail(*_):
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("server.store.audit.AuditTable.append", fail)
        refused(provider.exchange(token), 500, "INTERNAL_SERVER_ERROR", {})

    assert provider.exchange(token).status_code == 200
