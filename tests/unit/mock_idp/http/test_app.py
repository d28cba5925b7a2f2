import base64
import json
from urllib.parse import quote

import pytest

from mock_idp.faults.plan import PlannedFault
from mock_idp.http.app import create_app
from mock_idp.http.wsgi_server import ConnectionToResetError
from mock_idp.job import Job

NO_PERMISSION = "runner does not have permissions to generate id token"


@pytest.fixture
def started(issuer):
    return issuer.start_job(Job())


def _ask(client, started, audience=None, scheme="bearer", path=None):
    url = (path or started.request_path) + (
        f"&audience={quote(audience, safe='')}" if audience is not None else ""
    )
    return client.get(url, headers={"Authorization": f"{scheme} {started.request_token}"})


def _payload(token):
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


@pytest.mark.parametrize("scheme", ["bearer", "Bearer", "BEARER"])
def test_a_job_gets_a_token_whatever_the_case_of_the_scheme(client, started, scheme):
    """The authorization scheme has no case: GitHub's documentation and its toolkit differ."""
    response = _ask(client, started, "https://id.example.com", scheme)

    assert response.status_code == 200
    assert list(response.json) == ["count", "value"]
    assert response.json["count"] == len(response.json["value"])
    assert _payload(response.json["value"])["aud"] == "https://id.example.com"


@pytest.mark.parametrize("audience", [None, ""])
def test_no_or_an_empty_audience_means_the_owners_page(client, started, audience):
    """Without an audience, `aud` is the URL of the repository owner on github.com."""
    value = _ask(client, started, audience).json["value"]

    assert _payload(value)["aud"] == "https://github.com/octo-org"


def test_the_audience_is_taken_over_byte_by_byte(client, started):
    """Unicode, spaces and brackets in the audience are kept."""
    audience = 'api://[ä "b"]?x=1&y=+'

    assert _payload(_ask(client, started, audience).json["value"])["aud"] == audience


def test_an_audience_of_somebody_else_on_github_is_refused(client, started):
    """An audience of another owner on GitHub is refused in GitHub's own format and words."""
    response = _ask(client, started, "https://github.com/apps/cyspbot")

    assert (response.status_code, response.json) == (
        400,
        {
            "source": "actions-run-service",
            "statusCode": 400,
            "errorMessage": "Can't issue ID_TOKEN for audience 'https://github.com/apps/cyspbot'",
        },
    )


@pytest.mark.parametrize("authorization", [None, "bearer", "bearer wrong", "Basic dXNlcjpwYXNz"])
def test_without_a_request_token_there_is_no_token(client, started, authorization):
    """A missing or wrong credential gets 401."""
    headers = {"Authorization": authorization} if authorization else {}

    assert client.get(started.request_path, headers=headers).status_code == 401


def test_a_request_token_is_expired_after_its_job(client, issuer, started):
    """The request token of an ended job is useless on a self-hosted runner."""
    issuer.end_job(started.job_id)

    response = _ask(client, started)

    assert (response.status_code, response.json["errorMessage"]) == (
        401,
        "token has invalid claims: token is expired",
    )


@pytest.mark.parametrize(
    "mangle",
    [
        lambda path: path.replace("//idtoken", "/idtoken"),
        lambda path: path.partition("?")[0],
        lambda path: f"{path}?audience=x",
        lambda path: f"{path}&audience=a&audience=b",
        lambda path: f"{path}&Audience=x",
        lambda path: f"{path.partition('?')[0]}&audience=x",
        lambda path: path.replace("/232", "/233"),
        lambda path: path.replace("2.0", "1.0"),
        lambda path: path.replace("?", "/more?"),
    ],
)
def test_a_client_that_mangles_the_url_has_no_permission(client, started, mangle):
    """Normalised paths, dropped queries and an audience after a second `?` get 403."""
    response = _ask(client, started, path=mangle(started.request_path))

    assert (response.status_code, response.json["errorMessage"]) == (403, NO_PERMISSION)


def test_a_slash_before_the_query_is_allowed(client, started):
    """A slash before the query is allowed, because some of GitHub's own URLs have one."""
    assert _ask(client, started, path=started.request_path.replace("?", "/?")).status_code == 200


def test_a_token_is_for_its_own_job_alone(client, issuer, started):
    """A job's request token does not work for another job's URL."""
    other = issuer.start_job(Job(repository="octo-org/other"))

    assert _ask(client, other, path=started.request_path).status_code == 403


@pytest.mark.parametrize("mode", ["none", "fork"])
def test_a_job_without_permission_is_refused(client, issuer, mode):
    """A job without permission gets no token, even with URL and request token."""
    assert _ask(client, issuer.start_job(Job(id_token=mode))).json["errorMessage"] == NO_PERMISSION


@pytest.mark.parametrize("url", ["https://ghes.example.com/_services/token", "http://127.0.0.1:3001"])
def test_documents_lie_at_the_root_and_under_the_issuers_path(make_issuer, url):
    """The documents are served at the root and under the issuer's path, as for enterprises and GHES."""
    client = create_app(make_issuer(url)).test_client()
    path = url.partition("//")[2].partition("/")[1:]

    for prefix in {"", "".join(path)}:
        assert client.get(f"{prefix}/.well-known/openid-configuration").json["issuer"] == url
        assert len(client.get(f"{prefix}/.well-known/jwks").json["keys"]) == 2


def test_the_discovery_document_keeps_its_order(client):
    """The JSON document begins with `issuer`."""
    assert client.get("/.well-known/openid-configuration").text.startswith('{"issuer":')


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [("discovery", "/.well-known/openid-configuration"), ("jwks", "/.well-known/jwks")],
)
def test_a_planned_status_is_answered_and_logged(client, issuer, endpoint, path):
    """The planned fault happens once; both responses are in the log."""
    issuer.plan_fault(PlannedFault(endpoint, status=503, times=1))

    assert [client.get(path).status_code for _ in range(2)] == [503, 200]
    assert [(entry["endpoint"], entry["status"]) for entry in issuer.requests()] == [
        (endpoint, 503),
        (endpoint, 200),
    ]


def test_a_planned_delay_waits_before_the_response(client, issuer, slept):
    """A delayed response is complete."""
    issuer.plan_fault(PlannedFault("jwks", delay=2.5, times=1))

    assert client.get("/.well-known/jwks").status_code == 200
    assert slept == [2.5]


def test_a_planned_token_fault_comes_with_a_good_response(client, issuer, started, now):
    """The request endpoint returns a faulty token with a normal response."""
    issuer.plan_fault(PlannedFault("token", fault="expired"))

    response = _ask(client, started)

    assert response.status_code == 200
    assert _payload(response.json["value"])["exp"] < now


def test_a_fault_does_not_turn_a_refusal_into_a_token(client, issuer, started):
    """A token fault does not change the refusal of a request without credential."""
    issuer.plan_fault(PlannedFault("token", fault="expired"))

    assert client.get(started.request_path).status_code == 401


def test_a_planned_status_below_400_changes_the_status_alone(client, issuer):
    """A status below 400 keeps the whole document."""
    issuer.plan_fault(PlannedFault("jwks", status=203))

    response = client.get("/.well-known/jwks")

    assert (response.status_code, len(response.json["keys"])) == (203, 2)


def test_a_reset_leaves_no_response(client, issuer):
    """A reset drops the connection, and its log entry has no status."""
    issuer.plan_fault(PlannedFault("jwks", fault="reset"))

    with pytest.raises(ConnectionToResetError):
        client.get("/.well-known/jwks")
    assert issuer.requests()[0]["status"] is None


def test_a_truncated_answer_promises_more_than_it_has(client, issuer):
    """`Content-Length` is that of the whole document, but only half of it is sent."""
    issuer.plan_fault(PlannedFault("jwks", fault="truncated"))

    response = client.get("/.well-known/jwks")

    promised = int(response.headers["Content-Length"])
    assert len(response.data) == promised // 2


def test_a_redirect_points_to_the_same_url(client, issuer, started):
    """A client that follows the redirect sends its credential twice, and the log shows it."""
    issuer.plan_fault(PlannedFault("token", fault="redirect", times=1))

    response = _ask(client, started)

    assert (response.status_code, response.headers["Location"]) == (
        302,
        f"http://localhost{started.request_path}",
    )


def test_the_log_has_no_secrets(client, issuer, started):
    """Log entries have the repository and the audience, but neither request tokens nor ID tokens."""
    value = _ask(client, started, "https://id.example.com").json["value"]

    entry = issuer.requests()[0]
    assert (entry["repository"], entry["audience"]) == ("octo-org/hello-agent", "https://id.example.com")
    assert started.request_token not in str(entry)
    assert value not in str(entry)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("get", "/nowhere", 404), ("post", "/.well-known/jwks", 405)]
)
def test_errors_are_json(client, method, path, status):
    """Errors of the web framework are JSON too."""
    response = getattr(client, method)(path)

    assert response.status_code == status
    assert response.json["message"].startswith(f"{method.upper()} {path}: ")
