"""`POST /oidc/token` in JSON: the token issued, and its audit record."""

from datetime import UTC, datetime
from uuid import UUID

import jwt
import pytest

from kit.provider import POLICIES, PROVIDER, REPOSITORY
from kit.refusals import assert_refused
from kit.tokens import claims_of, kid_of
from mock_idp.job import Job

NOON = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp())


def issued_claims(answer):
    return claims_of(answer.json["access_token"])


def test_bootstrap_token(provider):
    """Without an agentId the token lets the repository register agents; its name is in GitHub's spelling."""
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
    claims = issued_claims(answer)
    assert claims["sub"] == claims["client_id"] == f"repo:{REPOSITORY}"
    assert claims["provenance"]["policy_id"] == policy["id"]


def test_agent_token_is_as_rfc_9068_says(provider):
    """The token has the header and claims of RFC 9068, and the run it was issued to."""
    agent, policy = provider.trusted_agent()
    job = Job()

    answer = provider.exchange(provider.github_token(job=job), agentId=agent)

    header = jwt.get_unverified_header(answer.json["access_token"])
    claims = issued_claims(answer)
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
    """Anyone with our key set and issuer name can verify the token (RFC 7517, RFC 8414)."""
    agent, _ = provider.trusted_agent()
    token = provider.exchange(agentId=agent).json["access_token"]
    key_set = jwt.PyJWKSet.from_dict(provider.http.get("/.well-known/jwks.json").json)

    key = key_set[kid_of(token)]

    options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    claims = jwt.decode(
        token, key.key, algorithms=["ES256"], audience=PROVIDER, issuer=PROVIDER, options=options
    )
    assert claims["sub"] == agent


def test_token_audience_is_the_configured_one(provider):
    """`SENTRYAGENT_TOKEN_AUDIENCE` is our tokens' audience; `SENTRYAGENT_OIDC_AUDIENCE` is the ID tokens'."""
    provider.policy()
    other = provider.with_settings(
        TOKEN_AUDIENCE="https://api.example.com", OIDC_AUDIENCE="https://hello.example.com"
    )

    given = other.exchange(provider.github_token(aud="https://hello.example.com"))
    refused = other.exchange(provider.github_token())

    assert issued_claims(given)["aud"] == "https://api.example.com"
    assert issued_claims(given)["iss"] == PROVIDER
    assert refused.json["details"] == {
        "reason": "wrong_audience",
        "expectedAudience": "https://hello.example.com",
    }
    assert other.http.get("/api/v1/oidc/audience").json == {"audience": "https://hello.example.com"}


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
    """The policy's maxTtl and the request's expiresIn can only shorten the lifetime; larger values are capped."""
    agent, _ = provider.trusted_agent(maxTtl=max_ttl)
    process = provider if token_ttl is None else provider.with_settings(TOKEN_TTL=token_ttl)

    answer = process.exchange(agentId=agent, expiresIn=expires_in)

    claims = issued_claims(answer)
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
    """The token has all scopes of the policy, or the requested part of them."""
    agent, _ = provider.trusted_agent(scopes=scopes)

    answer = provider.exchange(agentId=agent, scope=asked)

    assert answer.json["scope"] == issued_claims(answer)["scope"] == given


@pytest.mark.parametrize("asked", ["agents:write", "agents:read audit:read", "nothing", "AGENTS:READ"])
def test_scope_beyond_the_policy_is_refused(provider, asked):
    """A scope beyond the policy is a 403 with the permitted scopes; the ID token stays unused."""
    agent, _ = provider.trusted_agent()
    token = provider.github_token()

    assert_refused(
        provider.exchange(token, agentId=agent, scope=asked),
        403,
        "SCOPE_NOT_PERMITTED",
        {"permitted": ["agents:read"]},
    )
    assert provider.exchange(token, agentId=agent).status_code == 200


def test_scopes_of_a_bootstrap_policy_do_not_reach_its_tokens(provider):
    """A bootstrap token has only agents:write, whatever scopes its policy lists."""
    provider.policy(scopes=["agents:read", "tokens:read"])

    assert provider.exchange().json["scope"] == "agents:write"
    assert_refused(
        provider.exchange(scope="tokens:read"), 403, "SCOPE_NOT_PERMITTED", {"permitted": ["agents:write"]}
    )


def test_dry_run_tells_and_changes_nothing(provider):
    """A dry run decides as the exchange would, but issues, pins and records no use, and keeps the token unused."""
    agent, policy = provider.trusted_agent(maxTtl=60)
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
    assert provider.get(f"{POLICIES}/{policy['id']}").json == policy
    assert provider.exchange(token, agentId=agent, dryRun=False).status_code == 200


def test_last_use_is_noted_once_a_minute(provider):
    """`lastUsedAt` is written at most once a minute, and changes neither version nor ETag."""
    policy = provider.policy(repositoryId=Job().repository_id, repositoryOwnerId=Job().repository_owner_id)
    noted = []
    for seconds in (0, 59, 1, 60):
        provider.clock.advance(seconds)
        assert provider.exchange().status_code == 200
        stored = provider.get(f"{POLICIES}/{policy['id']}")
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


def test_issue_is_audited_with_both_jtis(provider):
    """The record of an exchange has the run, the policy with its version, and both tokens' ids."""
    agent, policy = provider.trusted_agent()
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
    assert details["jti"] == claims_of(token)["jti"]
    assert details["issuedJti"] == issued_claims(answer)["jti"]
    assert (details["scope"], details["expiresIn"], details["ref"]) == ("agents:read", 60, "refs/heads/main")
    assert UUID(record["eventId"])


def test_refusal_is_audited_with_its_trace(provider):
    """The record of a refusal has its code and every policy considered, even with explanations off."""
    provider.policy(branch="dev")
    silent = provider.with_settings(EXPLAIN="off")

    answer = silent.exchange()

    (record,) = provider.audit(action="token.refused")
    assert record["outcome"] == "failure"
    assert record["requestId"] == answer.headers["X-Request-Id"]
    assert record["details"]["code"] == "BRANCH_NOT_PERMITTED"
    assert record["details"]["trace"][0]["failed"][0]["condition"] == "branch"


def test_no_token_without_its_audit_record(provider, monkeypatch):
    """If the audit record cannot be written, no token is issued and the ID token stays usable."""
    provider.policy()
    token = provider.github_token()

    def fail(*_):
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("sentryagent_idp.store.audit.AuditTable.append", fail)
        assert_refused(provider.exchange(token), 500, "INTERNAL_SERVER_ERROR", {})

    assert provider.exchange(token).status_code == 200
