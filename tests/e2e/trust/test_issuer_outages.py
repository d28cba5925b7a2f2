"""The real provider while GitHub's key endpoints are down, slow, rotating, withdrawing or poisoned.

Nothing here waits for the provider's 30 s between two refreshes: that pause, to the second, is proven with a clock that
tests turn (`tests/unit/server/github/test_issuer_keys.py`).
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
    """A token that names a key which nobody publishes, a different one for each number."""
    return server.token(header={"kid": f"nobody-{number}"})


def refusal(answer):
    return answer.status_code, answer.json()["code"], answer.json()["details"]


def test_a_burst_of_unknown_keys_costs_one_fetch(serve, mock_idp):
    """A thousand tokens with a thousand invented kids make GitHub answer once, and those with a known one go on (B4)."""
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
    # One, and on a machine so slow that the burst takes longer than the pause, one for each pause.
    assert 1 <= mock_idp.jwks_fetches - fetches <= 1 + (time.monotonic() - began) // PAUSE_SECONDS


def test_a_cold_start_with_the_issuer_down(serve, mock_idp):
    """Without any key exchanges are 503 with the seconds to wait; /ready stays 200 and shows what is missing (B5)."""
    mock_idp.plan_fault("discovery", status=503)
    server = serve()

    answers = [server.exchange() for _ in range(20)]

    assert [refusal(answer) for answer in answers] == [(503, "ISSUER_UNAVAILABLE", {})] * 20
    assert all(1 <= int(answer.headers["Retry-After"]) <= 30 for answer in answers)
    keys = server.issuer_keys()
    assert (keys["state"], keys["ageSeconds"]) == ("missing", None)
    assert keys["lastError"] == "it answers with status 503"
    assert mock_idp.discovery_fetches <= 2, "the warm-up and one for the tokens"


def test_the_first_token_after_a_failed_start_finds_the_keys(serve, mock_idp):
    """Who starts while GitHub hiccups is well again with the first exchange after it."""
    mock_idp.plan_fault("discovery", fault="reset", times=1)
    server = serve()
    assert server.exchange().status_code == 200
    assert server.issuer_keys()["state"] == "fresh"


def test_an_outage_is_not_noticed_with_a_known_key(serve, mock_idp):
    """Keys that are held serve on while GitHub is away, and the failed refresh is shown (R-JWKS-3)."""
    server = serve()
    assert server.exchange().status_code == 200
    mock_idp.plan_fault("discovery", fault="reset")
    mock_idp.plan_fault("jwks", fault="reset")

    assert refusal(server.exchange(unknown_kid(server)))[2] == UNKNOWN
    assert [server.exchange().status_code for _ in range(20)] == [200] * 20
    assert server.issuer_keys()["lastError"]


def test_a_slow_issuer_keeps_nobody_with_a_known_key_waiting(serve, mock_idp):
    """While a refresh hangs on GitHub, exchanges with known keys are answered (R-JWKS-1)."""
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
    """The first token of a new key brings it in, and the keys that GitHub withdrew meanwhile go with the same refresh."""
    server = serve()
    old = server.token()
    assert server.exchange(server.token()).status_code == 200
    mock_idp.rotate(publish=True, keep_old=False)

    assert server.exchange(server.token()).status_code == 200
    assert refusal(server.exchange(old)) == (401, "INVALID_OIDC_TOKEN", UNKNOWN)


@pytest.mark.parametrize("fault", ["empty-keys", "duplicate-kid"])
def test_a_poisoned_key_set_replaces_nothing(fault, serve, mock_idp):
    """A set that is empty or ambiguous is not believed: old keys serve, new ones are not taken (B5)."""
    server = serve()
    genuine = [server.token() for _ in range(5)]
    mock_idp.plan_fault("jwks", fault=fault)
    mock_idp.rotate(publish=True, keep_old=True)

    assert refusal(server.exchange(server.token())) == (401, "INVALID_OIDC_TOKEN", UNKNOWN)
    assert [server.exchange(token).status_code for token in genuine] == [200] * 5
    keys = server.issuer_keys()
    assert (keys["state"], bool(keys["lastError"])) == ("fresh", True)
