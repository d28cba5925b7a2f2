"""The mock in this process and the mock over HTTP: one interface."""

import inspect
import time

import httpx
import jwt
import pytest

from mock_idp.client import MockClient, MockUnavailableError, RefusedError
from mock_idp.job import Job
from mock_idp.request_log import RequestLog
from mock_idp.server import MockIdp
from mock_idp.strict_fields import InvalidFieldError

AUDIENCE = "https://id.example.com"


@pytest.fixture(params=["in process", "over HTTP"])
def mock(request, idp):
    """The mock under test, in both forms."""
    return idp if request.param == "in process" else MockClient(idp.url)


def _fetch(job, audience=AUDIENCE):
    return httpx.get(
        f"{job['requestUrl']}&audience={audience}", headers={"Authorization": f"bearer {job['requestToken']}"}
    )


def _kids(mock):
    return [key["kid"] for key in httpx.get(f"{mock.url}/.well-known/jwks").json()["keys"]]


def _payload(token):
    return jwt.decode(token, options={"verify_signature": False})


def test_both_forms_have_the_same_verbs():
    """Whatever a test does in process, it can do against a container."""
    verbs = {
        kind: {
            name: inspect.signature(verb)
            for name, verb in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in {"serve_forever", "start_job", "token"}
        }
        for kind in (MockIdp, MockClient)
    }

    assert verbs[MockIdp] == verbs[MockClient]
    assert verbs[MockIdp].keys() > {
        "mint",
        "job",
        "rotate",
        "retire",
        "freeze",
        "travel",
        "skew",
        "minted",
        "reset",
    }
    assert issubclass(MockIdp, RequestLog)
    assert issubclass(MockClient, RequestLog)


def test_tokens_are_minted_with_all_options(mock):
    """Job, audience, claims, header and fault reach the token."""
    token = mock.mint(
        job=Job(repository="octo-org/other", immutable_sub=True),
        audience=AUDIENCE,
        header={"x": 1},
        actor=None,
    )

    claims = _payload(token)
    assert claims["sub"].startswith("repo:octo-org@")
    assert (claims["aud"], claims["iss"], "actor" in claims) == (AUDIENCE, mock.issuer, False)
    assert jwt.get_unverified_header(token)["x"] == 1
    assert mock.mint(fault="alg-none").endswith(".")


def test_what_clients_asked_for_can_be_asserted(mock):
    """Tokens by audience, fetches by number."""
    job = mock.job(repository="octo-org/agent", environment="production")
    assert _fetch(job).status_code == 200
    _kids(mock)

    assert mock.minted(audience=AUDIENCE).once()["repository"] == "octo-org/agent"
    mock.minted(audience="https://other.example.com").never()
    assert (mock.jwks_fetches, mock.discovery_fetches) == (1, 0)
    mock.reset()
    assert (mock.jwks_fetches, len(mock.minted())) == (0, 0)


def test_a_job_can_be_ended(mock):
    """Its request token is expired from then on."""
    job = mock.job()
    mock.end_job(job["jobId"])

    assert _fetch(job).status_code == 401


def test_keys_are_rotated_with_overlap_hidden_published_and_retired(mock):
    """The life of a key in four verbs."""
    first, second = _kids(mock)
    with_overlap = mock.rotate()
    assert _kids(mock) == [with_overlap, first, second]
    hidden = mock.rotate(publish=False)
    assert hidden not in _kids(mock)
    assert mock.publish() == hidden == _kids(mock)[0]
    assert set(mock.retire()) == {with_overlap, first, second}
    assert _kids(mock) == [hidden]
    mock.restore()
    assert _kids(mock) == [first, second]


def test_restore_ends_the_jobs(mock):
    """Nothing of one test reaches the next."""
    job = mock.job()
    mock.restore()

    assert _fetch(job).status_code == 401


def test_the_clock_freezes_travels_and_is_skewed(mock):
    """Tokens carry the mock's time."""
    mock.freeze(1_790_000_000)
    assert _payload(mock.mint())["iat"] == 1_790_000_000
    mock.travel(1_800_000_000)
    assert 0 <= _payload(mock.mint())["iat"] - 1_800_000_000 < 60
    mock.skew(-3600)
    assert abs(_payload(mock.mint())["iat"] + 3600 - time.time()) < 60
    mock.freeze()
    assert abs(_payload(mock.mint())["iat"] - time.time()) < 60


def test_faults_are_planned_and_cleared(mock):
    """N times, then fine; and what is no fault is refused."""
    mock.plan_fault("jwks", status=503, times=1)
    url = f"{mock.url}/.well-known/jwks"
    assert [httpx.get(url).status_code for _ in range(2)] == [503, 200]
    mock.plan_fault("jwks", status=500)
    mock.clear_faults()
    assert httpx.get(url).status_code == 200
    with pytest.raises((RefusedError, InvalidFieldError), match="fault"):
        mock.plan_fault("jwks", fault="no-such-fault")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[::1"])
def test_a_mock_that_is_not_there_is_told(url):
    """With what to do."""
    with pytest.raises(MockUnavailableError, match="start one with `mock-idp serve`"):
        MockClient(url).reset()


def test_something_else_that_answers_is_told(idp):
    """A URL of another path, or an older mock."""
    with pytest.raises(MockUnavailableError, match="answered 404 to POST /_mock/reset"):
        MockClient(f"{idp.url}/elsewhere").reset()
