"""Refusals in the audit: before the signature check only counted, after it the first of each kind in full."""

import json
import sqlite3
from contextlib import closing, contextmanager

import pytest

from kit.provider import NOBODY
from kit.refusals import assert_refused
from sentryagent_idp.errors import DatabaseUnavailable

KIB_8 = 8 * 1024


def counted(provider, action="token.refused"):
    """The reason and count of each record of this action, oldest first; a full record's count is `None`."""
    return [
        (it["details"]["reason"], it["details"].get("count")) for it in provider.audit(action=action)[::-1]
    ]


def size(record):
    """The size in bytes of the details as stored."""
    return len(json.dumps(record["details"], separators=(",", ":")))


def test_flood_of_bad_tokens_leaves_one_record(any_provider):
    """Many unacceptable tokens leave one audit record for each address and reason, with their count."""
    provider = any_provider
    for fault in ["bad-signature"] * 5 + ["alg-none"] * 2:
        assert provider.exchange(provider.github_token(fault=fault)).status_code == 401
    assert [it for it in provider.audit() if it["action"].startswith("token.")] == []

    assert provider.end_minute() == 2

    records = provider.audit(action="token.rejected")
    assert {(it["details"]["reason"], it["details"]["count"]) for it in records} == {
        ("bad_signature", 5),
        ("malformed", 2),
    }
    assert {it["address"] for it in records} == {"127.0.0.1"}
    assert {it["actor"] for it in records} == {"unverified"}


@pytest.mark.parametrize(
    ("addresses", "records"),
    [
        # one host can use a whole /64
        ([f"2001:db8:0:7::{n:x}" for n in range(1500)], {("2001:db8:0:7::/64", 1500)}),
        # an ISP's customer can use many /64s
        (
            [f"2001:db8:{n:x}::1" for n in range(1500)],
            {(f"2001:db8:{n:x}::/64", 1) for n in range(1, 100)} | {("2001:db8::/64", 1), ("others", 1400)},
        ),
    ],
)
def test_addresses_do_not_multiply_records(provider, addresses, records):
    """1,500 bad bearer tokens from 1,500 addresses add a bounded number of records, and each one is counted."""
    for address in addresses:
        provider.http.get(
            "/api/v1/agents",
            headers={"Authorization": "Bearer made-up"},
            environ_base={"REMOTE_ADDR": address},
        )

    assert provider.end_minute() == len(records)

    rows = [*provider.audit(action="auth.failed"), *provider.audit(action="auth.failed", page=2)]
    assert {(it["address"], it["details"]["count"]) for it in rows} == records


@pytest.mark.parametrize(
    ("claims", "reason", "missing"),
    [
        ({"aud": "https://github.com/octo-org"}, "wrong_audience", set()),
        ({"exp": 1}, "expired", set()),
        ({"iat": 1}, "too_old", set()),
        ({"nbf": 10**11}, "not_yet_valid", set()),
        ({"repository_owner_id": None}, "missing_claim", {"repository_owner_id"}),
        ({"jti": None, "ref": None}, "missing_claim", {"jti", "ref"}),
    ],
)
def test_a_genuine_token_that_is_of_no_use_is_found_by_its_request(any_provider, claims, reason, missing):
    """For common setup mistakes, the admin finds the run, the repository and the reason by the `requestId`."""
    provider = any_provider
    answers = [provider.exchange(provider.github_token(run_id="77", **claims)) for _ in range(3)]

    (record,) = provider.audit(requestId=answers[0].headers["X-Request-Id"])

    details = record["details"]
    assert {it.status_code for it in answers} == {401}
    assert (record["action"], record["outcome"]) == ("token.refused", "failure")
    assert (record["repository"], record["actor"]) == ("octo-org/hello-agent", "repo:octo-org/hello-agent")
    assert (details["code"], details["reason"]) == ("INVALID_OIDC_TOKEN", reason)
    assert (details["message"], details["run_id"]) == (answers[0].json["message"], "77")
    assert {name for name in ("jti", "ref", "repository_owner_id") if not details[name]} == missing
    provider.end_minute()
    assert counted(provider) == [(reason, None), (reason, 2)]


def test_useless_tokens_do_not_spend_what_exchanges_may(provider):
    """Expired tokens count towards a limit of their own, so one found in a log cannot block its repository."""
    process = provider.with_settings(RATE_LIMIT="3")
    process.policy()
    token = process.github_token(exp=1)

    statuses = [process.exchange(token).status_code for _ in range(5)]

    assert statuses == [401, 401, 401, 429, 429]
    assert [process.exchange().status_code for _ in range(3)] == [200] * 3


def test_five_hundred_sends_of_a_refused_token_are_two_records(any_provider):
    """The first refusal is recorded at once and in full, the others of the minute as a count."""
    provider = any_provider
    token = provider.github_token()

    answers = [provider.exchange(token) for _ in range(500)]

    assert {it.status_code for it in answers} == {403}
    (first,) = provider.audit(action="token.refused")
    assert first["requestId"] == answers[0].headers["X-Request-Id"]
    assert (first["repository"], first["actor"]) == ("octo-org/hello-agent", "repo:octo-org/hello-agent")
    assert first["details"]["run_id"]
    assert first["details"]["message"] == answers[0].json["message"]
    assert provider.end_minute() == 1
    count, same = provider.audit(action="token.refused")
    assert same == first
    assert (count["repository"], count["actor"]) == (first["repository"], first["actor"])
    assert (count["outcome"], count["address"], count["agentId"]) == ("failure", None, None)
    assert count["details"] == {
        "code": "TRUST_POLICY_VIOLATION",
        "reason": "no_policy",
        "repository_id": first["details"]["repository_id"],
        "count": 499,
    }
    assert provider.end_minute() == 0


def test_each_minute_has_its_first(any_provider):
    """Once the counts of a minute are written, the next refusal is recorded in full again."""
    provider = any_provider
    for _ in range(2):
        provider.exchange()
        provider.exchange()
        provider.end_minute()

    assert counted(provider) == [("no_policy", None), ("no_policy", 1)] * 2


@pytest.mark.parametrize(
    ("claims", "body", "reason"),
    [
        ({"ref": "refs/heads/dev"}, {}, "branch"),
        ({"ref": "refs/heads/dev", "environment": None}, {}, "branch environment"),
        ({"environment": "test"}, {}, "environment"),
        ({"event_name": "workflow_run"}, {}, "events"),
        ({"repository_id": "666"}, {}, "identity_changed"),
        ({"repository": "octo-org/other", "repository_id": "77"}, {}, "no_policy"),
        ({"ref_type": None}, {}, "missing_claim"),
        ({}, {"agentId": NOBODY}, "agent_not_active"),
        ({}, {"scope": "tokens:read"}, "scope_not_permitted"),
        ({"ref": "refs/heads/dev"}, {"dryRun": True}, "branch"),
    ],
)
def test_causes(provider, claims, body, reason):
    """A repeated reason is counted; another reason is recorded in full."""
    provider.policy(branch="main", environment="production", repositoryId="74")
    provider.exchange(provider.github_token(actor_id="1", repository_id="9", repository="octo-org/another"))
    for _ in range(3):
        token = provider.github_token(**{"environment": "production", "repository_id": "74"} | claims)
        assert provider.exchange(token, **body).status_code in {401, 403}
    provider.end_minute()

    assert counted(provider) == [("no_policy", None), (reason, None), (reason, 2)]


def test_replays_are_counted(provider):
    """A used token that is sent repeatedly leaves one full record and a count."""
    provider.policy()
    token = provider.github_token()
    assert [provider.exchange(token).status_code for _ in range(4)] == [200, 401, 401, 401]
    provider.end_minute()

    assert counted(provider) == [("replayed", None), ("replayed", 2)]


def test_repositories_and_agents_are_kept_apart(provider):
    """The same reason for another repository or agent is recorded in full; a renamed repository is the same."""
    agents = [provider.agent(f"bot-{n}@octo-org.example")["agentId"] for n in range(2)]
    tokens = [
        provider.github_token(),
        provider.github_token(repository="octo-org/renamed"),
        provider.github_token(repository_id="77"),
    ]
    for token in tokens:
        provider.exchange(token)
    for agent in agents:
        provider.exchange(tokens[0], agentId=agent)
    provider.end_minute()

    assert counted(provider) == [("no_policy", None)] * 4 + [("no_policy", 1)]


def test_strangers_do_not_crowd_out_others(provider):
    """Beyond a hundred kinds of one reason, new ones share a count; another reason is still recorded in full."""
    provider.policy(branch="main")
    for number in range(130):
        token = provider.github_token(repository="evil/api", repository_id=str(10_000 + number))
        assert provider.exchange(token).status_code == 403
    provider.exchange(provider.github_token(ref="refs/heads/dev"))

    assert provider.audit(action="token.refused")[0]["details"]["reason"] == "branch"
    assert provider.end_minute() == 1
    (count, *_) = provider.audit(action="token.refused")
    assert (count["repository"], count["details"]["count"]) == (None, 30)
    assert len(provider.audit(action="token.refused", page=2)) == 2


def _long_policy(number):
    return {
        "branch": f"release-{number}-".ljust(230, "x"),
        "environment": "e" * 200,
        "actorIds": [str(10**18 + actor) for actor in range(100)],
    }


def test_a_record_of_a_hundred_long_policies_is_small(any_provider):
    """A record has the nearest three policies within 8 KiB, however many and long the policies are."""
    provider = any_provider
    provider.policy(branch="near", actorIds=["5"])
    for number in range(100):
        provider.policy(**_long_policy(number))

    names = {"ref": "refs/heads/" + "b" * 240, "environment": "f" * 250, "actor_id": "1"}
    assert provider.exchange(provider.github_token(**names)).status_code == 403

    (record,) = provider.audit(action="token.refused")
    assert size(record) <= KIB_8
    assert record["details"]["truncated"] is True
    nearest = record["details"]["trace"]
    assert [it["failed"][0]["condition"] for it in nearest] == ["branch"] * 3
    assert nearest[0]["failed"][0]["expected"] == "near"
    assert len(nearest[1]["failed"][2]["expected"]) > 1


def test_a_policy_of_a_hundred_actors_is_shown(provider):
    """A long policy is recorded whole if it fits."""
    provider.policy(actorIds=_long_policy(0)["actorIds"])
    provider.exchange(provider.github_token(actor_id="1"))

    (record,) = provider.audit(action="token.refused")
    (policy,) = record["details"]["trace"]
    assert len(policy["failed"][0]["expected"]) == 100
    assert "truncated" not in record["details"]
    assert size(record) <= KIB_8


@contextmanager
def away(provider, cluster=None):
    """A database outage: PostgreSQL is stopped; on SQLite the audit table cannot be written."""
    if cluster is not None:
        cluster.stop()
        try:
            yield
        finally:
            cluster.start()
        return
    with closing(sqlite3.connect(provider.url.removeprefix("sqlite:///"))) as connection:
        connection.execute("ALTER TABLE audit_log RENAME TO away")
        yield
        connection.execute("ALTER TABLE away RENAME TO audit_log")


@pytest.fixture
def outage(any_provider, request):
    """A context manager that makes the database of `any_provider` unavailable."""
    is_sqlite = any_provider.url.startswith("sqlite")
    cluster = None if is_sqlite else request.getfixturevalue("postgres_cluster")
    return lambda: away(any_provider, cluster)


def test_counts_outlast_an_outage(any_provider, outage):
    """Counts that cannot be written are kept, together with later ones, until the database is back."""
    provider = any_provider
    for _ in range(3):
        provider.exchange()
    with outage():
        for _ in range(2):
            provider.exchange(provider.github_token(fault="bad-signature"))
            with pytest.raises(DatabaseUnavailable):
                provider.end_minute()

    provider.exchange()  # the first of a new minute, so recorded in full
    assert provider.end_minute() == 2

    assert counted(provider) == [("no_policy", None), ("no_policy", None), ("no_policy", 2)]
    assert counted(provider, "token.rejected") == [("bad_signature", 2)]


def test_a_first_record_that_fails_is_made_up_for(provider):
    """If the first record cannot be written, the response is a 503, and the next refusal is recorded in full."""
    with away(provider):
        assert_refused(provider.exchange(), 503, "SERVICE_UNAVAILABLE", {})

    answers = [provider.exchange() for _ in range(2)]

    assert [it.status_code for it in answers] == [403, 403]
    assert [it["requestId"] for it in provider.audit(action="token.refused")] == [
        answers[0].headers["X-Request-Id"]
    ]
    provider.end_minute()
    assert counted(provider) == [("no_policy", None), ("no_policy", 1)]


def test_every_refusal_is_in_the_metrics(provider):
    """Refusals that the audit only counts are still counted one by one in the metrics."""
    for _ in range(5):
        provider.exchange()

    page = provider.http.get("/metrics").text
    assert 'agentidp_refusals_total{code="TRUST_POLICY_VIOLATION",reason=""} 5.0' in page
