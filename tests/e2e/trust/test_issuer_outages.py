"""The real provider while GitHub's key endpoints are down, slow or poisoned, or rotate or withdraw keys.

No test here waits for the 30 s between two refreshes: unit tests check that pause with a controlled clock
(`tests/unit/server/github/test_issuer_keys.py`).
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

BURST = 1000
PAUSE_SECONDS = 30
SLOW_SECONDS = 4
UNKNOWN = {"reason": "unknown_key"}


def unknown_kid(server, number=0):
    """A token with an unpublished `kid`, different for each number."""
    return server.token(header={"kid": f"nobody-{number}"})


def refusal(answer):
    return answer.status_code, answer.json()["code"], answer.json()["details"]


def test_a_burst_of_unknown_keys_costs_one_fetch(serve, mock_idp):
    """A thousand tokens with invented kids cause one fetch from GitHub, and tokens with a known kid still work (B4)."""
    server = serve()
    assert server.exchange().status_code == 200
    fetches = mock_idp.jwks_fetches
    tokens = [unknown_kid(server, number) for number in range(BURST)]
    genuine = [server.token() for _ in range(50)]

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        burst = [pool.submit(server.exchange, token) for token in tokens]
        known = [server.exchange(token).status_code for token in genuine]
        refused = Counter(str(refusal(it.result())) for it in burst)

    assert refused == {str((401, "INVALID_OIDC_TOKEN", UNKNOWN)): BURST}
    assert known == [200] * len(genuine)
    # One fetch, and one more for each pause if the burst takes longer than that on a slow machine.
    assert 1 <= mock_idp.jwks_fetches - fetches <= 1 + (time.monotonic() - began) // PAUSE_SECONDS


def test_a_cold_start_with_the_issuer_down(serve, mock_idp):
    """Without keys, exchanges are 503 with `Retry-After`; /ready stays 200 and shows the missing keys (B5)."""
    mock_idp.plan_fault("discovery", status=503)
    server = serve()

    answers = [server.exchange() for _ in range(20)]

    assert [refusal(answer) for answer in answers] == [(503, "ISSUER_UNAVAILABLE", {})] * 20
    assert all(1 <= int(answer.headers["Retry-After"]) <= 30 for answer in answers)
    keys = server.issuer_keys()
    assert (keys["state"], keys["ageSeconds"]) == ("missing", None)
    assert keys["lastError"] == "it responds with status 503"
    assert mock_idp.discovery_fetches <= 2, "the warm-up and one for the tokens"


def test_the_first_token_after_a_failed_start_finds_the_keys(serve, mock_idp):
    """A provider that starts during a short outage of GitHub fetches the keys with the next exchange."""
    mock_idp.plan_fault("discovery", fault="reset", times=1)
    server = serve()
    assert server.exchange().status_code == 200
    assert server.issuer_keys()["state"] == "fresh"


def test_an_outage_is_not_noticed_with_a_known_key(serve, mock_idp):
    """Cached keys still work during an outage of GitHub, and /ready shows the failed refresh."""
    server = serve()
    assert server.exchange().status_code == 200
    mock_idp.plan_fault("discovery", fault="reset")
    mock_idp.plan_fault("jwks", fault="reset")

    assert refusal(server.exchange(unknown_kid(server)))[2] == UNKNOWN
    assert [server.exchange().status_code for _ in range(20)] == [200] * 20
    assert server.issuer_keys()["lastError"]


def test_a_slow_issuer_keeps_nobody_with_a_known_key_waiting(serve, mock_idp):
    """Exchanges with known keys succeed while a refresh waits for GitHub."""
    server = serve()
    assert server.exchange().status_code == 200
    fetches = mock_idp.jwks_fetches
    mock_idp.plan_fault("jwks", delay=SLOW_SECONDS)
    waiting = Event()

    def ask(number):
        waiting.set()
        return server.exchange(unknown_kid(server, number))

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, number) for number in range(8)]
        waiting.wait()
        known = [server.exchange().status_code for _ in range(10)]
        still_waiting = [it for it in asking if not it.done()]
        refused = [refusal(it.result()) for it in asking]

    assert known == [200] * 10
    assert still_waiting, "the exchanges above were to happen during the refresh"
    assert refused == [(401, "INVALID_OIDC_TOKEN", UNKNOWN)] * 8
    assert mock_idp.jwks_fetches - fetches == 1


def test_a_new_key_is_taken_and_a_withdrawn_one_dropped(serve, mock_idp):
    """The first token with a new key triggers a refresh, which also drops the keys that GitHub has withdrawn."""
    server = serve()
    old = server.token()
    assert server.exchange(server.token()).status_code == 200
    mock_idp.rotate(publish=True, keep_old=False)

    assert server.exchange(server.token()).status_code == 200
    assert refusal(server.exchange(old)) == (401, "INVALID_OIDC_TOKEN", UNKNOWN)


@pytest.mark.parametrize("fault", ["empty-keys", "duplicate-kid"])
def test_a_poisoned_key_set_replaces_nothing(fault, serve, mock_idp):
    """An empty or ambiguous key set is rejected: old keys still work, new ones are not accepted (B5)."""
    server = serve()
    genuine = [server.token() for _ in range(5)]
    mock_idp.plan_fault("jwks", fault=fault)
    mock_idp.rotate(publish=True, keep_old=True)

    assert refusal(server.exchange(server.token())) == (401, "INVALID_OIDC_TOKEN", UNKNOWN)
    assert [server.exchange(token).status_code for token in genuine] == [200] * 5
    keys = server.issuer_keys()
    assert (keys["state"], bool(keys["lastError"])) == ("fresh", True)
