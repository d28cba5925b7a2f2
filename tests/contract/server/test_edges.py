"""Times at the ends of the calendar and numbers beyond 64 bits: no input gives a 5xx, on either engine."""

import pytest

from kit.provider import AGENTS, AUDIT, POLICIES

LAST = "9999-12-31T23:59:59.999999Z"
FIRST = "0001-01-01T00:00:00Z"

CLAIMS = [
    # claims of GitHub's token, status, reason
    ({"exp": 253402300709}, 200, None),
    ({"exp": 253402300710}, 401, "malformed"),
    ({"exp": 253402300799}, 401, "malformed"),
    ({"exp": 253402300800}, 401, "malformed"),
    ({"exp": 1099511627776}, 401, "malformed"),
    ({"exp": 1099511627777}, 401, "malformed"),
    ({"exp": 9223372036854775808}, 401, "malformed"),
    ({"exp": 10**30}, 401, "malformed"),
    ({"exp": -1}, 401, "malformed"),
    ({"exp": -62135596801}, 401, "malformed"),
    ({"exp": 0}, 401, "expired"),
    ({"iat": 253402300709}, 401, "not_yet_valid"),
    ({"iat": 253402300710}, 401, "malformed"),
    ({"iat": 9223372036854775808}, 401, "malformed"),
    ({"iat": -1}, 401, "malformed"),
    ({"iat": 0}, 401, "too_old"),
    ({"nbf": 253402300709}, 401, "not_yet_valid"),
    ({"nbf": 253402300710}, 401, "malformed"),
    ({"nbf": 9223372036854775808}, 401, "malformed"),
    ({"nbf": -1}, 401, "malformed"),
    ({"nbf": 0}, 200, None),
    ({"exp": 253402300709, "iat": 253402300709, "nbf": 253402300709}, 401, "not_yet_valid"),
]


@pytest.fixture(scope="module")
def agent(each_provider):
    """An agent that every run of the default repository on main may act as."""
    return each_provider.trusted_agent(branch="main")[0]


@pytest.mark.parametrize(("claims", "status", "reason"), CLAIMS)
@pytest.mark.parametrize("dry_run", [False, True])
def test_times_of_an_id_token(each_provider, agent, dry_run, claims, status, reason):
    """`exp` plus the time the replay store adds must stay within the calendar; a later `exp` is malformed (B12)."""
    answer = each_provider.exchange(
        each_provider.github_token(**claims), agentId=agent, **({"dryRun": True} if dry_run else {})
    )

    assert answer.status_code == status, answer.text
    assert answer.json.get("details", {}).get("reason") == reason


def test_an_id_token_with_the_last_time_is_good_once(each_provider, agent):
    """The `jti` of a token with the last possible `exp` is kept like any other."""
    token = each_provider.github_token(exp=253402300709)

    answers = [each_provider.exchange(token, agentId=agent) for _ in range(2)]

    assert [it.status_code for it in answers] == [200, 401]
    assert answers[1].json["details"]["reason"] == "replayed"


@pytest.mark.parametrize(
    ("seconds", "status", "given"),
    [
        (1, 200, 1),
        (2**31, 200, 3600),
        (2**63 - 1, 200, 3600),
        (2**63, 200, 3600),
        (10**30, 400, None),
        (0, 400, None),
        (-(2**63), 400, None),
    ],
)
def test_lifetimes(each_provider, agent, seconds, status, given):
    """A requested lifetime larger than any database integer is capped like any other long one."""
    answer = each_provider.exchange(agentId=agent, expiresIn=seconds)

    assert answer.status_code == status, answer.text
    assert answer.json.get("expires_in") == given


MOMENTS = [
    # expiresAt, the status of the write, whether the policy or credential is live
    (LAST, 201, True),
    (FIRST, 201, False),
    ("9999-12-31T23:59:59+23:59", 201, True),
    ("0001-01-01T00:00:00-23:59", 201, False),
    ("9999-12-31T23:59:59-23:59", 400, False),
    ("9999-12-31T23:59:59.999999-00:00:01", 400, False),
    ("0001-01-01T00:00:00+23:59", 400, False),
    ("10000-01-01T00:00:00Z", 400, False),
    ("0000-01-01T00:00:00Z", 400, False),
    ("9999-12-31T25:00:00Z", 400, False),
    ("9999-W53-7T00:00:00Z", 400, False),
]


@pytest.mark.parametrize(("number", "row"), list(enumerate(MOMENTS)))
def test_ends_of_policies(each_provider, agent, number, row):
    """A policy may expire on any day of the calendar, in any zone; it can be listed and used."""
    moment, status, is_live = row
    body = {"repository": f"octo-org/edge{number}", "agentId": agent}
    http, headers = each_provider.http, each_provider.admin

    answer = http.post(POLICIES, json={**body, "expiresAt": moment}, headers=headers)

    assert answer.status_code == status, answer.text
    listed = http.get(POLICIES, query_string={"repository": body["repository"]}, headers=headers)
    assert (listed.status_code, listed.json["total"]) == (200, 1 if status == 201 else 0)
    exchanged = each_provider.exchange(
        each_provider.github_token(repository=body["repository"]), agentId=agent
    )
    assert exchanged.status_code == (200 if is_live else 403)


@pytest.mark.parametrize(("number", "row"), list(enumerate(MOMENTS)))
def test_ends_of_credentials(each_provider, number, row):
    """The same times as a client secret's expiry, which must be in the future."""
    moment, _, is_live = row
    post = each_provider.http.post
    bot = each_provider.agent(f"edge{number}@octo-org.example")["agentId"]
    path, headers = f"{AGENTS}/{bot}/credentials", each_provider.admin

    answer = post(path, json={"expiresAt": moment}, headers=headers)

    assert answer.status_code == (201 if is_live else 400), answer.text
    assert each_provider.http.get(path, headers=headers).status_code == 200
    if is_live:
        form = {"grant_type": "client_credentials", "client_id": bot}
        granted = post("/api/v1/token", data={**form, "client_secret": answer.json["clientSecret"]})
        assert granted.status_code == 200


@pytest.mark.parametrize(
    ("max_ttl", "status"),
    [(2**31 - 1, 201), (2**31, 400), (2**63 - 1, 400), (2**63, 400), (10**30, 400), (0, 400), (-1, 400)],
)
def test_longest_lifetimes_of_policies(each_provider, max_ttl, status):
    """`maxTtl` must fit into the database's column."""
    body = {"repository": "octo-org/max-ttl", "maxTtl": max_ttl}

    answer = each_provider.post(POLICIES, json=body)

    assert answer.status_code == status, answer.text


QUERIES = [
    (AUDIT, {"from": LAST}, 200),
    (AUDIT, {"to": LAST}, 200),
    (AUDIT, {"from": FIRST, "to": FIRST}, 200),
    (AUDIT, {"from": "9999-12-31T23:59:59-23:59"}, 400),
    (AUDIT, {"to": "0001-01-01T00:00:00+23:59"}, 400),
    (AUDIT, {"from": "10000-01-01T00:00:00Z"}, 400),
    (AUDIT, {"policyVersion": "999999999"}, 200),
    (AUDIT, {"policyVersion": "9223372036854775808"}, 400),
    (AUDIT, {"policyVersion": "-1"}, 400),
    (AUDIT, {"page": "9223372036854775808"}, 400),
    (POLICIES, {"page": "1000000", "limit": "100"}, 200),
    (POLICIES, {"page": "1000001"}, 400),
    (POLICIES, {"page": "9223372036854775807", "limit": "100"}, 400),
    (AGENTS, {"page": "1000000", "limit": "100"}, 200),
    (AGENTS, {"page": "9223372036854775808"}, 400),
    (AGENTS, {"limit": "9223372036854775808"}, 400),
    (f"{AGENTS}/AGENT/credentials", {"page": "1000000", "limit": "100"}, 200),
    (f"{AGENTS}/AGENT/credentials", {"page": "9223372036854775808"}, 400),
]


@pytest.mark.parametrize(("path", "query", "status"), QUERIES)
def test_queries(each_provider, agent, path, query, status):
    """Filters and pages at the ends of their ranges."""
    url = path.replace("AGENT", agent)

    answer = each_provider.get(url, query_string=query)

    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("tag", ['"2147483648"', '"9223372036854775808"', f'"{"9" * 5000}"'])
def test_versions(each_provider, tag):
    """A version number too large for any policy is not the current one."""
    policy = each_provider.policy(repository=f"octo-org/version{len(tag)}")
    headers = {**each_provider.admin, "If-Match": tag}

    answer = each_provider.http.put(f"{POLICIES}/{policy['id']}", json=policy, headers=headers)

    assert answer.status_code == 412, answer.text
