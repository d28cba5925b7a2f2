"""Rate limits by address and by repository, and client addresses behind proxies."""

import pytest
from structlog.testing import capture_logs

from kit.provider import EXCHANGE, grant_form
from kit.refusals import assert_oauth_refused, assert_refused
from sentryagent_idp.tokens import client_secret


def test_repository_limit_counts_verified_tokens_only(provider):
    """Only verified tokens count; one over the limit is a 429 and stays unused, and other repositories go on."""
    provider.policy()
    provider.policy(repository="octo-org/other")
    limited = provider.with_settings(RATE_LIMIT="3")
    for fault in ("bad-signature", "expired", "unknown-kid", "wrong-audience"):
        limited.exchange(provider.github_token(fault=fault))
    assert [limited.exchange().status_code for _ in range(3)] == [200] * 3
    token = provider.github_token()

    answer = limited.exchange(token)

    assert "repository" in assert_refused(answer, 429, "RATE_LIMITED", {})["message"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert provider.exchange(token).status_code == 200
    other = provider.github_token(repository="octo-org/other", repository_id="77", repository_owner_id="78")
    assert limited.exchange(other).status_code == 200


def test_repository_limit_follows_the_id(provider):
    """A repository gets no second allowance under another name or letter case."""
    for name in ("octo-org/hello-agent", "octo-org/renamed"):
        provider.policy(repository=name)
    limited = provider.with_settings(RATE_LIMIT="1")

    statuses = [
        limited.exchange(provider.github_token(repository=name)).status_code
        for name in ("octo-org/hello-agent", "octo-org/renamed", "OCTO-org/hello-agent")
    ]

    assert statuses == [200, 429, 429]


def test_dry_runs_and_refusals_count(provider):
    """Dry runs and refused exchanges count towards the limit."""
    provider.policy(branch="main")
    limited = provider.with_settings(RATE_LIMIT="2")

    limited.exchange(dryRun=True)
    limited.exchange(provider.github_token(ref="refs/heads/dev"))

    assert limited.exchange().status_code == 429


def test_address_limit_comes_before_parsing(provider):
    """An address may send ten times the repository limit, counted before the body is read."""
    limited = provider.with_settings(RATE_LIMIT="1")
    bodies = [b"", b"{", b"\xff", b"x" * 40_000]
    for index in range(10):
        answer = limited.http.post(EXCHANGE, data=bodies[index % 4], content_type="application/json")
        assert answer.status_code in {400, 413}

    answer = limited.http.post(EXCHANGE, data=b"x" * 40_000, content_type="text/plain")

    assert "address" in assert_refused(answer, 429, "RATE_LIMITED", {})["message"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert limited.http.get("/health").status_code == 200


def test_limit_of_zero_is_off(provider):
    """`SENTRYAGENT_RATE_LIMIT=0` turns both limits off."""
    unlimited = provider.with_settings(RATE_LIMIT="0")

    assert {unlimited.http.post(EXCHANGE, json={}).status_code for _ in range(30)} == {400}


TAKE_SECRETS = ["/api/v1/token", "/api/v1/token/revoke"]


@pytest.fixture
def stilled(provider):
    """Creates a process with a frozen clock for its limits: hashing is slow enough to cross into the next minute."""

    def stilled(**settings):
        process = provider.with_settings(**settings)
        services = process.app.extensions["sentryagent"]
        for limit in (services.address_limit, *vars(services.wrong_secrets).values()):
            limit._clock = lambda: 6_000.0
        return process

    return stilled


def guess(process, path, address="192.0.2.1", client="x", secret="x"):
    """Send one client secret from an address."""
    form = grant_form(client, secret, token="x")
    return process.http.post(path, data=form, environ_base={"REMOTE_ADDR": address})


@pytest.mark.parametrize("path", TAKE_SECRETS)
def test_guesses_of_secrets_spend_the_address_limit(stilled, path):
    """Every request with a client secret counts towards the address limit, before the secret is checked."""
    limited = stilled(RATE_LIMIT="1")
    for number in range(10):
        answer = guess(limited, path, client=f"client {number}")
        assert_oauth_refused(answer, 401, "invalid_client", "INVALID_CLIENT")

    answer = guess(limited, path, client="another")

    assert (
        "requests"
        in assert_oauth_refused(answer, 429, "temporarily_unavailable", "RATE_LIMITED")["error_description"]
    )


@pytest.mark.parametrize("path", TAKE_SECRETS)
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("general", ["0", "600"])
def test_wrong_secrets_have_a_limit_of_their_own(stilled, client, monkeypatch, general, is_known, path):
    """Ten wrong secrets a minute for a client from one address, known or not; the eleventh costs no hash."""
    process, hashed = stilled(RATE_LIMIT=general), []
    matches = client_secret.matches
    monkeypatch.setattr(client_secret, "matches", lambda *args: hashed.append(args) or matches(*args))
    target = client[0] if is_known else "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    for _ in range(10):
        assert_oauth_refused(guess(process, path, client=target), 401, "invalid_client", "INVALID_CLIENT")

    answer = guess(process, path, client=target)

    assert_oauth_refused(answer, 429, "temporarily_unavailable", "RATE_LIMITED")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert len(hashed) == 10
    assert guess(process, path, client=client[0] + "x").status_code == 401


@pytest.mark.parametrize("path", TAKE_SECRETS)
def test_strangers_who_guess_lock_no_client_out(stilled, client, path):
    """Wrong secrets block a client only from the guessing network; correct secrets do not count."""
    process = stilled()
    for address in ("198.51.100.1", "2001:db8::1"):
        assert {guess(process, path, address, client[0]).status_code for _ in range(12)} == {401, 429}

    assert {guess(process, path, "192.0.2.1", *client).status_code for _ in range(30)} == {200}
    assert guess(process, path, "2001:db8::2", *client).status_code == 429
    assert guess(process, path, "2001:db8:0:1::2", *client).status_code == 200


def test_wrong_secrets_of_one_address(stilled, client):
    """An address may send twenty wrong secrets a minute; after that even a correct one is refused."""
    process = stilled()
    statuses = [guess(process, "/api/v1/token", client=f"client {n}").status_code for n in range(21)]

    assert statuses == [401] * 20 + [429]
    assert guess(process, "/api/v1/token", "192.0.2.1", *client).status_code == 429
    assert guess(process, "/api/v1/token", "192.0.2.2", *client).status_code == 200


PROXIES = "10.0.0.0/8, 2001:db8::/32"


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "address"),
    [
        (None, "192.0.2.1", None, "192.0.2.1"),
        (None, "192.0.2.1", "198.51.100.1", "192.0.2.1"),
        (None, "10.0.0.1", "198.51.100.1", "10.0.0.1"),
        (PROXIES, "192.0.2.1", "198.51.100.1", "192.0.2.1"),
        (PROXIES, "10.0.0.1", None, "10.0.0.1"),
        (PROXIES, "10.0.0.1", "198.51.100.1", "198.51.100.1"),
        (PROXIES, "10.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        (PROXIES, "10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        (PROXIES, "10.0.0.1", "198.51.100.1,10.9.9.9 , 10.0.0.2", "198.51.100.1"),
        (PROXIES, "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (PROXIES, "10.0.0.1", "junk", "10.0.0.1"),
        (PROXIES, "10.0.0.1", "198.51.100.1, junk", "10.0.0.1"),
        (PROXIES, "10.0.0.1", "", "10.0.0.1"),
        (PROXIES, "2001:db8::1", "2001:DB9::1", "2001:db9::1"),
        (PROXIES, "10.0.0.1", "198.51.100.1:1234", "198.51.100.1"),
        (PROXIES, "::ffff:10.0.0.1", "[2001:db9::1]:443", "2001:db9::1"),
        (PROXIES, "::ffff:192.0.2.1", "198.51.100.1", "192.0.2.1"),
        (PROXIES, "10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
    ],
)
def test_address_behind_proxies(provider, proxies, peer, forwarded, address):
    """X-Forwarded-For is read from the right through trusted proxies only, and ignored without one."""
    provider.policy(branch="dev")
    process = provider.with_settings(TRUSTED_PROXIES=proxies) if proxies else provider
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}

    process.http.post(
        EXCHANGE, json={"token": provider.github_token()}, headers=headers, environ_base={"REMOTE_ADDR": peer}
    )

    (record,) = provider.audit(action="token.refused")
    assert record["address"] == address


def test_a_forged_header_buys_no_allowance(provider):
    """A client that forges addresses in X-Forwarded-For is still counted as one."""
    limited = provider.with_settings(RATE_LIMIT="1", TRUSTED_PROXIES="127.0.0.1")

    statuses = [
        limited.http.post(
            EXCHANGE, json={}, headers={"X-Forwarded-For": f"192.0.2.{n}, 198.51.100.1"}
        ).status_code
        for n in range(12)
    ]

    assert statuses == [400] * 10 + [429] * 2


def test_ipv4_clients_of_a_dual_stack_socket_have_their_own_allowance(provider):
    """With `serve --host ::`, one IPv4 client's requests do not count for another."""
    limited = provider.with_settings(RATE_LIMIT="1")

    def ask(peer):
        return limited.http.post(EXCHANGE, json={}, environ_base={"REMOTE_ADDR": peer}).status_code

    assert [ask("::ffff:192.0.2.1") for _ in range(11)] == [400] * 10 + [429]
    assert ask("::ffff:192.0.2.2") == 400
    assert ask("192.0.2.1") == 429


def test_an_unreadable_header_is_one_warning(provider):
    """An unreadable X-Forwarded-For is logged once a minute, not for every request."""
    process = provider.with_settings(TRUSTED_PROXIES="127.0.0.1")

    with capture_logs() as lines:
        for _ in range(20):
            process.http.get("/health", headers={"X-Forwarded-For": "eyJ-secret"})
        process.http.get("/health", headers={"X-Forwarded-For": ""})

    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert warning["proxy"] == "127.0.0.1"
    assert "X-Forwarded-For" in warning["event"]
    assert "eyJ-secret" not in str(lines)


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.0/8"])
def test_a_readable_header_is_no_warning(provider, trusted):
    """A readable header causes no warning, whether or not its sender is trusted."""
    process = provider.with_settings(TRUSTED_PROXIES=trusted)

    with capture_logs() as lines:
        process.http.get("/health", headers={"X-Forwarded-For": "203.0.113.7:4431"})

    assert [line["log_level"] for line in lines] == ["debug"]
