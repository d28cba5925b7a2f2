"""Which ID tokens can be exchanged: the checks in the order of docs/errors.md, freshness and single use."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from kit.provider import GITHUB, PROVIDER
from kit.refusals import assert_refused

NOON = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp())


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
def test_unacceptable_token_is_401_with_its_reason(still_provider, reason, changes):
    """The reason is the first check, in the order of docs/errors.md, that fails."""
    answer = still_provider.exchange(still_provider.github_token(**changes))

    more = {
        "wrong_audience": {"expectedAudience": PROVIDER},
        "wrong_issuer": {"issuer": changes.get("iss"), "expectedIssuers": [GITHUB]},
    }
    details = {"reason": reason, **more.get(reason, {})}
    assert_refused(answer, 401, "INVALID_OIDC_TOKEN", details)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="sentryagent"'


@pytest.mark.parametrize(
    "token", ["", "x", "a.b", "a.b.c.d.e", " ", "a.b.c ", "é.b.c", "x" * 16_385, "x" * 32_000]
)
def test_text_that_is_no_token_is_malformed(still_provider, token):
    """Any text that is not a token is a 401 with the reason `malformed`."""
    answer = still_provider.http.post("/api/v1/oidc/token", json={"token": token})

    assert_refused(answer, 401, "INVALID_OIDC_TOKEN", {"reason": "malformed"})


def test_own_token_is_no_identity(provider):
    """Our own access token cannot be exchanged for another one (B15)."""
    provider.policy()
    ours = provider.exchange().json["access_token"]

    answer = provider.exchange(ours)

    assert assert_refused(answer, 401, "INVALID_OIDC_TOKEN")["details"]["reason"] in {
        "wrong_type",
        "wrong_issuer",
    }


@pytest.mark.parametrize(
    "changes",
    [{"exp": NOON - 29}, {"nbf": NOON + 30}, {"iat": NOON + 30}, {"iat": NOON - 600}, {"exp": NOON + 21_600}],
)
def test_times_within_leeway_are_good(provider, changes):
    """`exp`, `nbf` and `iat` have a leeway of 30 s, the maximum age has none; the lifetime is not limited."""
    provider.policy()

    assert provider.exchange(provider.github_token(**changes)).status_code == 200


def test_max_age_is_configurable(provider):
    """`SENTRYAGENT_OIDC_MAX_AGE` sets the maximum age of an ID token."""
    provider.policy()
    strict = provider.with_settings(OIDC_MAX_AGE="60")

    assert strict.exchange(provider.github_token(iat=NOON - 60)).status_code == 200
    assert_refused(
        strict.exchange(provider.github_token(iat=NOON - 61)),
        401,
        "INVALID_OIDC_TOKEN",
        {"reason": "too_old"},
    )


def test_a_token_is_exchanged_once(provider):
    """A second use is a replay, even in a dry run, for another agent or in another process."""
    agent, _ = provider.trusted_agent()
    provider.policy()
    token = provider.github_token()
    assert provider.exchange(token, agentId=agent).status_code == 200

    for again in (
        provider.exchange(token, agentId=agent),
        provider.exchange(token),
        provider.exchange(token, dryRun=True),
        provider.with_settings().exchange(token),
    ):
        assert_refused(again, 401, "INVALID_OIDC_TOKEN", {"reason": "replayed"})


def test_of_many_at_one_moment_one_wins(provider):
    """Of N parallel exchanges of one token, one succeeds and N - 1 are replays."""
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
    """A token that a policy refused can still be used once the policy is corrected."""
    policy = provider.policy(branch="dev")
    token = provider.github_token()
    assert provider.exchange(token).status_code == 403
    provider.replace_policy(policy, branch="main")

    assert provider.exchange(token).status_code == 200


def test_unreachable_issuer_is_503(provider):
    """Without issuer keys, the client should retry later."""
    provider.policy()
    provider.keys.reachable = False

    answer = provider.exchange()

    assert_refused(answer, 503, "ISSUER_UNAVAILABLE", {})
    assert int(answer.headers["Retry-After"]) > 0
