"""The mock in this process and the mock over HTTP have the same interface."""

import inspect
import time
from collections import deque

import httpx
import jwt
import pytest

from mock_idp.client import MockClient, MockUnavailableError
from mock_idp.job import Job
from mock_idp.request_log import LogOverflowError, RequestLog
from mock_idp.server import MockIdp
from mock_idp.strict_fields import InvalidFieldError

AUDIENCE = "https://id.example.com"
TIMES = ("iat", "nbf", "exp")


@pytest.fixture(params=["in process", "over HTTP"])
def mock(request, idp):
    """The mock under test, in process and over HTTP."""
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
    """Both forms have the same methods, so that a test can also run against a container."""
    verbs = {
        kind: {
            name: inspect.signature(verb).parameters
            for name, verb in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in {"serve_forever", "start_job", "token"}
        }
        for kind in (MockIdp, MockClient)
    }

    assert verbs[MockIdp] == verbs[MockClient]
    assert verbs[MockIdp].keys() > {
        "mint",
        "job",
        "add_issuer",
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
        claims={"actor": None},
        header={"x": 1},
    )

    claims = _payload(token)
    assert claims["sub"].startswith("repo:octo-org@")
    assert (claims["aud"], claims["iss"], "actor" in claims) == (AUDIENCE, mock.issuer, False)
    assert jwt.get_unverified_header(token)["x"] == 1
    assert mock.mint(fault="alg-none").endswith(".")


@pytest.mark.parametrize(
    ("given", "claims"),
    [
        ({"environment": "production"}, {"sub": "repo:octo-org/hello-agent:environment:production"}),
        (
            {"ref": "refs/heads/evil"},
            {
                "sub": "repo:octo-org/hello-agent:ref:refs/heads/evil",
                "workflow_ref": "octo-org/hello-agent/.github/workflows/ci.yml@refs/heads/evil",
            },
        ),
        (
            {"event": "pull_request"},
            {"sub": "repo:octo-org/hello-agent:pull_request", "ref": "refs/pull/1/merge"},
        ),
        ({"repository": "a/b"}, {"sub": "repo:a/b:ref:refs/heads/main", "repository_owner": "a"}),
        # A mapping, with Python's or JSON's names, and options that override it.
        ({"job": {"environment": "e", "runId": "7"}}, {"environment": "e", "run_id": "7"}),
        ({"job": {"run_id": "7"}, "run_attempt": "2"}, {"run_id": "7", "run_attempt": "2"}),
        (
            {"job": {"include_claim_keys": ("repo", "ref")}},
            {"sub": "repo:octo-org/hello-agent:ref:refs/heads/main"},
        ),
        # A raw override changes only its own claim.
        ({"claims": {"ref": "x"}}, {"ref": "x", "sub": "repo:octo-org/hello-agent:ref:refs/heads/main"}),
    ],
)
def test_options_of_a_job_make_the_token_that_github_would_issue(mock, given, claims):
    """An option sets all claims that follow from it, both in `mint` and in `job`."""
    assert claims.items() <= _payload(mock.mint(**given)).items()
    if "claims" not in given:
        assert claims.items() <= _payload(_fetch(mock.job(**given)).json()["value"]).items()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda mock: mock.mint(fault="exipred"), "`fault` must be one of .*; the closest match is expired"),
        (
            lambda mock: mock.mint(enviroment="x"),
            "`enviroment` is an unknown field.*; the closest match is environment",
        ),
        (lambda mock: mock.mint(event_name="push"), "`event_name` is a claim, not an option of a job"),
        (lambda mock: mock.mint(sub="x"), "`sub` is a claim, not an option of a job"),
        (
            lambda mock: mock.mint(event="pull_reqest"),
            "`event` must be the name of an event .*; the closest match is pull_request",
        ),
        (lambda mock: mock.mint(environment=3), "`environment` must be a string"),
        (lambda mock: mock.mint(job={"colour": 1}), "`colour` is an unknown field"),
        (lambda mock: mock.mint(job=Job(), ref="x"), "`job` is a Job already"),
        (lambda mock: mock.mint(job=3), "`job` must be an object"),
        (lambda mock: mock.mint(claims=[("sub", "x")]), "`claims` must be an object"),
        (lambda mock: mock.mint(header="x"), "`header` must be an object"),
        (lambda mock: mock.mint(audience=["a"]), "`audience` must be a string"),
        (lambda mock: mock.job(enviroment="x"), "the closest match is environment"),
        (lambda mock: mock.job(event="psuh"), "the closest match is push"),
        (lambda mock: mock.freeze("x"), "`freeze` must be a number"),
        (lambda mock: mock.travel(float("nan")), "`travel` must be a number"),
        (lambda mock: mock.skew(True), "`offset` must be a number"),
        (lambda mock: mock.skew(10**400), "`offset` must be a number"),
        (lambda mock: mock.freeze(10**400), "`freeze` must be a number"),
        (lambda mock: mock.travel(-(10**400)), "`travel` must be a number"),
        (
            lambda mock: mock.plan_fault("jwk", status=503),
            "`endpoint` must be one of .*; the closest match is jwks",
        ),
        (lambda mock: mock.asked("jwk"), "`endpoint` must be one of .*; the closest match is jwks"),
        (lambda mock: mock.asked("tokens"), "`endpoint` must be one of .*; the closest match is token"),
        (
            lambda mock: mock.minted(audiense="x"),
            "`audiense` is not logged for token.*; the closest match is audience",
        ),
        (lambda mock: mock.minted(run_id=7), "`run_id` must be a string"),
        (
            lambda mock: mock.minted(event_name="psuh"),
            "`event_name` must be one of .*; the closest match is push",
        ),
        (lambda mock: mock.minted(iat="7"), "`iat` must be an integer"),
        # Claims belong to tokens: a fetch of the key set has none.
        (lambda mock: mock.asked("jwks", environment="x"), "`environment` is not logged for jwks"),
    ],
)
def test_a_misspelt_word_raises_and_never_passes(mock, ask, message):
    """A misspelt word raises: otherwise a test of a refusal would test an acceptance, and `.never()` could never fail."""
    with pytest.raises(InvalidFieldError, match=message):
        ask(mock)
    assert _payload(mock.mint())["iat"] == pytest.approx(time.time(), abs=60)


def test_the_log_has_the_claims_of_each_token_that_a_job_was_given(mock):
    """The log of a job's tokens can be filtered by any claim; refused and minted tokens are not in it."""
    job = mock.job(environment="production", repository_properties={"team": "blue"})
    assert _fetch(job).status_code == 200
    assert _fetch(mock.job(environment="staging"), "https://github.com/other").status_code == 400
    mock.mint(environment="canary")

    entry = mock.minted(environment="production").once()
    token = _payload(_fetch(job).json()["value"])
    assert entry["claims"] == {
        **token,
        "jti": entry["claims"]["jti"],
        **{n: entry["claims"][n] for n in TIMES},
    }
    assert mock.minted(
        sub="repo:octo-org/hello-agent:environment:production", repo_property_team="blue"
    ).times(2)
    assert mock.minted(kid=entry["kid"], environment="production", run_attempt="1").times(2)
    for nothing in ({"environment": "staging"}, {"environment": "canary"}, {"environment": None}):
        mock.minted(**nothing).never()


def test_a_forged_claim_is_logged_as_it_was_minted(mock):
    """The log has the forged claim as in the token, not the job's claim."""
    mock.plan_fault("token", fault="wrong-audience", times=1)
    value = _fetch(mock.job()).json()["value"]

    [entry] = mock.asked("token")
    assert entry["claims"]["aud"] == _payload(value)["aud"] != AUDIENCE


def test_one_server_has_several_issuers_that_share_nothing(mock):
    """Each issuer of a server has its own keys, clock, faults, jobs and log."""
    other = mock.add_issuer("/my-enterprise")
    other.freeze(1_790_000_000)
    other.plan_fault("jwks", status=503, times=1)
    job = other.job(environment="production")

    claims = _payload(_fetch(job).json()["value"])
    document = httpx.get(f"{other.url}/.well-known/openid-configuration").json()
    assert (claims["iss"], claims["iat"], claims["enterprise"]) == (
        other.issuer,
        1_790_000_000,
        "my-enterprise",
    )
    assert document["issuer"] == other.issuer == f"{mock.url}/my-enterprise"
    assert [httpx.get(document["jwks_uri"]).status_code for _ in range(2)] == [503, 200]
    assert not set(_kids(mock)) & set(_kids(other))
    assert (mock.jwks_fetches, len(mock.minted()), len(other.minted())) == (1, 0, 1)
    assert "enterprise" not in _payload(mock.mint())


@pytest.mark.parametrize(
    "issuer",
    [
        "https://ghe.example.com/my-enterprise", "", "https://octocorp.ghe.com", "/_mock/x", "octo", "/x/",
        # These would hide paths of the first issuer or of my-enterprise.
        "/.well-known", "/232", "/232/x", "/my-enterprise/_mock", "/my-enterprise/.well-known",
        # A client or the server would normalise these paths.
        "/a/../b", "/./a", "//evil.example/x", "/a%41", "/a b", "/a?b", "/a#b", "/é",
    ],
)  # fmt: skip
def test_a_further_issuer_needs_a_path_of_its_own(mock, issuer):
    """A further issuer must have its own path, because only the path distinguishes a server's issuers."""
    mock.add_issuer("/my-enterprise")

    with pytest.raises(InvalidFieldError, match="`issuer` "):
        mock.add_issuer(issuer)


def test_restoring_the_mock_restores_its_other_issuers(mock):
    """After `restore`, an issuer that is added again is in its initial state, with the same keys."""
    other = mock.add_issuer("/my-enterprise")
    first = _kids(other)
    other.rotate(keep_old=False)
    other.freeze(1)
    mock.restore()

    again = mock.add_issuer("/my-enterprise")
    assert (again.url, _kids(again)) == (other.url, first)
    assert _payload(again.mint())["iat"] > 1


def test_what_clients_asked_for_can_be_asserted(mock):
    """Requests can be asserted: tokens by audience, fetches by number."""
    job = mock.job(repository="octo-org/agent", environment="production")
    assert _fetch(job).status_code == 200
    _kids(mock)

    assert mock.minted(audience=AUDIENCE).once()["repository"] == "octo-org/agent"
    mock.minted(audience="https://other.example.com").never()
    assert (mock.jwks_fetches, mock.discovery_fetches) == (1, 0)
    mock.reset()
    assert (mock.jwks_fetches, len(mock.minted())) == (0, 0)


def test_requests_are_counted_also_where_the_log_has_forgotten_them(mock, idp, monkeypatch):
    """If the log has overflowed, all requests are still counted, and `.never()` raises instead of passing."""
    job = mock.job()
    assert _fetch(job).status_code == 200
    monkeypatch.setattr(idp.state, "_log", deque(maxlen=3))
    for _ in range(4):
        _kids(mock)

    assert (len(mock.requests()), mock.jwks_fetches) == (3, 4)
    assert mock.request_counts() == {"token": 1, "jwks": 4}
    for endpoint in ("token", "jwks"):
        with pytest.raises(LogOverflowError):
            mock.asked(endpoint).never()
    mock.reset()
    mock.minted().never()
    assert mock.request_counts() == {}


def test_a_job_can_be_ended(mock):
    """After a job ends, its request token is refused."""
    job = mock.job()
    mock.end_job(job["jobId"])

    assert _fetch(job).status_code == 401


def test_keys_are_rotated_with_overlap_hidden_published_and_retired(mock):
    """Keys can be rotated, hidden, published, retired and restored."""
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
    """`restore` ends all jobs, so that a test does not affect the next one."""
    job = mock.job()
    mock.restore()

    assert _fetch(job).status_code == 401


def test_the_clock_freezes_travels_and_is_skewed(mock):
    """Tokens have the time of the mock's clock."""
    mock.freeze(1_790_000_000)
    assert _payload(mock.mint())["iat"] == 1_790_000_000
    mock.travel(1_800_000_000)
    assert 0 <= _payload(mock.mint())["iat"] - 1_800_000_000 < 60
    mock.skew(-3600)
    assert abs(_payload(mock.mint())["iat"] + 3600 - time.time()) < 60
    mock.freeze()
    assert abs(_payload(mock.mint())["iat"] + 3600 - time.time()) < 60


def test_faults_are_planned_and_cleared(mock):
    """A planned fault happens N times or until it is cleared; an unknown fault is refused."""
    mock.plan_fault("jwks", status=503, times=1)
    url = f"{mock.url}/.well-known/jwks"
    assert [httpx.get(url).status_code for _ in range(2)] == [503, 200]
    mock.plan_fault("jwks", status=500)
    mock.clear_faults()
    assert httpx.get(url).status_code == 200
    with pytest.raises(InvalidFieldError, match="fault"):
        mock.plan_fault("jwks", fault="no-such-fault")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[::1"])
def test_a_mock_that_is_not_there_is_told(url):
    """If the mock does not run, the error says how to start one."""
    with pytest.raises(MockUnavailableError, match="start one with `mock-idp serve`"):
        MockClient(url).reset()


def test_something_else_that_answers_is_told(idp):
    """If another server or an older mock responds, the error names the response."""
    with pytest.raises(MockUnavailableError, match="responded with 404 to POST /_mock/reset"):
        MockClient(f"{idp.url}/elsewhere").reset()
