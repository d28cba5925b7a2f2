"""GitHub's keys fetched over HTTP from a mock with planned faults, and its tokens verified with them."""

import threading
import time

import httpx
import pytest

from kit.clock import RunningClock
from kit.processes import PATIENCE_SECONDS
from mock_idp.faults.documents import DISCOVERY_FAULTS, KEY_SET_FAULTS
from mock_idp.faults.responses import RESPONSE_FAULTS
from mock_idp.faults.tokens import TOKEN_FAULTS
from sentryagent_idp.errors import InvalidOidcToken, IssuerUnavailable
from sentryagent_idp.github import id_token
from sentryagent_idp.github.issuer_keys import GithubIssuerKeys


@pytest.fixture
def control(mock_idp):
    """The mock's control API: `control(path, body)`."""
    with httpx.Client(base_url=f"{mock_idp.url}/_mock", trust_env=False) as client:

        def post(path, body):
            response = client.post(path, json=body)
            assert response.is_success, response.text
            return response.json() if response.content else None

        yield post


@pytest.fixture
def clock():
    return RunningClock()


@pytest.fixture
def keys(mock_idp, clock):
    """The provider's key cache with a clock that can be advanced; refreshes run synchronously."""
    with httpx.Client(trust_env=False) as client:
        yield GithubIssuerKeys(
            mock_idp.issuer, client, monotonic=clock, schedule=lambda delay, task: None if delay else task()
        )


@pytest.fixture
def verify(mock_idp, keys, control):
    """Verifies a token for the mock's default audience."""
    audience = id_token.read(_token(control)).claims["aud"]

    def run(token):
        return id_token.verify(
            token,
            issuers={mock_idp.issuer: keys},
            audience=audience,
            now=int(time.time()),
            max_age_seconds=600,
        )

    return run


def _token(control, **order):
    return control("token", order)["token"]


def test_a_token_of_the_mock_is_accepted(verify, control):
    """The issuer's documents lead to the key that signed the token."""
    assert verify(_token(control))["repository"]


REASONS = {
    "expired": "expired",
    "not-yet-valid": "not_yet_valid",
    "too-old": "too_old",
    "missing-exp": "missing_claim",
    "text-times": "malformed",
    "wrong-issuer": "wrong_issuer",
    "issuer-with-slash": "wrong_issuer",
    "missing-issuer": "wrong_issuer",
    "wrong-audience": "wrong_audience",
    "audience-array": "wrong_audience",
    "missing-audience": "missing_claim",
    "missing-subject": "missing_claim",
    "missing-jti": "missing_claim",
    "missing-repository": "missing_claim",
    "missing-repository-id": "missing_claim",
    "duplicate-member": "malformed",
    "unknown-kid": "unknown_key",
    "missing-kid": "malformed",
    "wrong-type": "wrong_type",
    "embedded-jwk": "malformed",
    "jku-header": "malformed",
    "crit-header": "malformed",
    "bad-signature": "bad_signature",
    "empty-signature": "malformed",
    "alg-none": "malformed",
    "hs256-with-public-key": "algorithm_not_allowed",
    "oversize": "malformed",
}


@pytest.mark.parametrize("fault", REASONS)
def test_a_faulty_token_of_the_mock_is_refused_for_its_own_reason(fault, verify, control):
    """The reason is the first check that fails."""
    with pytest.raises(InvalidOidcToken) as caught:
        verify(_token(control, fault=fault))
    assert caught.value.reason == REASONS[fault]


# The token is valid but names another repository, so only a policy can refuse it.
OF_A_POLICY = {"repository-homoglyph"}


@pytest.mark.parametrize("fault", sorted(TOKEN_FAULTS.keys() - OF_A_POLICY))
def test_every_faulty_token_of_the_mock_is_refused(fault, verify, control):
    """Every token fault in the mock's catalogue is refused before any policy is read."""
    with pytest.raises(InvalidOidcToken):
        verify(_token(control, fault=fault))


HARMLESS = {("discovery", "wrong-content-type"), ("jwks", "wrong-content-type"), ("jwks", "wrong-keys")}
"""The same documents with another media type, and a valid key set whose keys sign nothing."""

DOCUMENT_FAULTS = sorted(
    {
        *(("discovery", fault) for fault in (*RESPONSE_FAULTS, *DISCOVERY_FAULTS)),
        *(("jwks", fault) for fault in (*RESPONSE_FAULTS, *KEY_SET_FAULTS)),
    }
    - HARMLESS
)


@pytest.mark.parametrize(("endpoint", "fault"), DOCUMENT_FAULTS)
def test_a_broken_document_is_not_believed(endpoint, fault, keys, verify, control, clock):
    """Without keys a broken document is a 503; cached keys stay valid, and are refreshed once it is repaired."""
    control("faults", {"endpoint": endpoint, "fault": fault})
    with pytest.raises(IssuerUnavailable) as caught:
        verify(_token(control))
    assert 29 <= caught.value.retry_after <= 30
    httpx.delete(f"{keys._issuer}/_mock/faults", trust_env=False)
    clock.offset += 31
    assert verify(_token(control))
    control("faults", {"endpoint": endpoint, "fault": fault})
    clock.offset += 31
    with pytest.raises(InvalidOidcToken):
        keys.find("unknown")
    assert keys.status()["lastError"]
    assert verify(_token(control))


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_an_error_status_is_an_outage(status, keys, verify, control):
    """While the issuer responds with an error status, cached keys stay valid."""
    keys.warm_up()
    control("faults", {"endpoint": "discovery", "status": status})
    with pytest.raises(InvalidOidcToken):
        keys.find("unknown")
    assert keys.status()["lastError"] == f"it responds with status {status}"
    assert verify(_token(control))


def test_a_rotated_key_is_taken_and_a_withdrawn_one_dropped(keys, verify, control, clock):
    """A token of a new key is accepted at once; after the refresh, a token of a removed key is refused."""
    old = _token(control)
    assert verify(old)
    clock.offset += 31
    control("keys/rotate", {"publish": True, "keepOld": False})
    assert verify(_token(control))
    with pytest.raises(InvalidOidcToken) as caught:
        verify(old)
    assert caught.value.reason == "unknown_key"


def test_an_unpublished_key_is_looked_for_once(keys, verify, control, mock_idp):
    """A key that is used before it is published costs one refresh, and its tokens are refused."""
    keys.warm_up()
    control("keys/rotate", {"publish": False})
    token = _token(control)
    for _ in range(20):
        with pytest.raises(InvalidOidcToken, match="does not publish"):
            verify(token)
    assert mock_idp.jwks_fetches == 2


def test_in_threads_of_its_own(mock_idp, control):
    """With the default schedule the warm-up returns at once, and the first token finds or waits for the keys."""
    with httpx.Client(trust_env=False) as client:
        keys = GithubIssuerKeys(mock_idp.issuer, client)
        keys.warm_up()
        token = id_token.read(_token(control))
        assert keys.find(token.kid).key_size >= 2048
        assert keys.status()["state"] == "fresh"
        assert mock_idp.jwks_fetches == 1
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()
            thread.join(PATIENCE_SECONDS)
