import base64
import json

import pytest

from mock_idp.faults.plan import fault_names
from mock_idp.faults.tokens import TOKEN_FAULTS


def _payload(token):
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


def test_a_token_is_minted_with_overriding_claims(client):
    """Given claims override the job's, null removes a claim, and the others follow from the job."""
    body = {
        "claims": {"ref": "refs/heads/x", "actor": None},
        "job": {"repository": "octo/a"},
        "audience": "me",
    }

    payload = _payload(client.post("/_mock/token", json=body).json["token"])

    assert (payload["ref"], payload["repository"], payload["aud"]) == ("refs/heads/x", "octo/a", "me")
    assert "actor" not in payload


def test_a_token_needs_no_options(client):
    """An empty request mints the default job's token with its default audience."""
    payload = _payload(client.post("/_mock/token").json["token"])

    assert (payload["repository"], payload["aud"]) == ("octo-org/hello-agent", "https://github.com/octo-org")


@pytest.mark.parametrize("fault", TOKEN_FAULTS)
def test_every_token_fault_can_be_minted(client, fault):
    """Every fault of the catalogue can be minted over HTTP."""
    assert client.post("/_mock/token", json={"fault": fault}).json["token"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/_mock/token", {"claims": []}, "claims"),
        ("/_mock/token", {"header": "x"}, "header"),
        ("/_mock/token", {"fault": "nonsense"}, "fault"),
        ("/_mock/token", {"job": {"repository": "x"}}, "repository"),
        ("/_mock/token", {"claim": {}}, "claim"),
        ("/_mock/faults", {}, "endpoint"),
        ("/_mock/faults", {"endpoint": "nowhere"}, "endpoint"),
        ("/_mock/faults", {"endpoint": "token"}, "fault"),
        ("/_mock/faults", {"endpoint": "jwks", "fault": "expired"}, "fault"),
        ("/_mock/faults", {"endpoint": "jwks", "fault": "empty-keys", "status": 500}, "fault"),
        ("/_mock/faults", {"endpoint": "token", "status": 99}, "status"),
        ("/_mock/faults", {"endpoint": "token", "status": 600}, "status"),
        ("/_mock/faults", {"endpoint": "token", "status": "500"}, "status"),
        ("/_mock/faults", {"endpoint": "token", "delay": -1}, "delay"),
        ("/_mock/faults", {"endpoint": "token", "delay": 601}, "delay"),
        ("/_mock/faults", {"endpoint": "token", "status": 500, "times": 0}, "times"),
        ("/_mock/clock", {}, "offset"),
        ("/_mock/clock", {"offset": 1, "freeze": 1}, "offset"),
        ("/_mock/clock", {"offset": "1"}, "offset"),
        ("/_mock/clock", {"freeze": True}, "freeze"),
        ("/_mock/keys/rotate", {"publish": "no"}, "publish"),
        ("/_mock/keys/rotate", {"keepold": True}, "keepold"),
        ("/_mock/jobs", {"event": "Push!"}, "event"),
        ("/_mock/reset", {"all": True}, "all"),
    ],
)
def test_what_would_be_ignored_or_misread_is_refused(client, path, body, field):
    """An unknown field or a wrong value gets 400 with a message that names the field."""
    response = client.post(path, json=body)

    assert (response.status_code, response.json["code"]) == (400, "VALIDATION_ERROR")
    assert response.json["details"]["field"] == field
    assert response.json["message"] == f"`{field}` {response.json['details']['reason']}."


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ("{", "body"),
        ("[]", "body"),
        ("[" * 100_000, "body"),
        ('{"offset": 1, "offset": 2}', "offset"),
        ('{"offset": NaN}', "offset"),
    ],
)
def test_a_body_that_is_no_clean_json_object_is_refused(client, data, field):
    """Broken or too deeply nested JSON, other values, duplicate fields and NaN are refused."""
    assert client.post("/_mock/clock", data=data).json["details"]["field"] == field


def test_json_is_read_whatever_its_content_type(client):
    """JSON is accepted with any content type, because `curl -d` sends that of a form."""
    response = client.post(
        "/_mock/clock", data='{"offset": 5}', content_type="application/x-www-form-urlencoded"
    )

    assert response.status_code == 200


def test_the_clock_is_shifted_and_frozen(client, now):
    """Each change of the clock returns the mock's time."""
    shifted = client.post("/_mock/clock", json={"offset": -60}).json
    frozen = client.post("/_mock/clock", json={"freeze": 42}).json

    assert (shifted, frozen) == ({"now": now - 60}, {"now": 42})


@pytest.mark.parametrize("endpoint", ["token", "discovery", "jwks"])
def test_every_fault_of_an_endpoint_can_be_planned(client, endpoint):
    """Every fault of the catalogue can be planned for its endpoint."""
    for name in fault_names(endpoint):
        assert client.post("/_mock/faults", json={"endpoint": endpoint, "fault": name}).status_code == 204


def test_faults_are_cleared(client):
    """DELETE clears the faults, and the endpoint works again."""
    client.post("/_mock/faults", json={"endpoint": "jwks", "status": 500})
    failed = client.get("/.well-known/jwks").status_code

    assert client.delete("/_mock/faults").status_code == 204
    assert (failed, client.get("/.well-known/jwks").status_code) == (500, 200)


def test_rotation_answers_the_new_kid_and_publishes_it(client):
    """The key set shows the new key at once, alongside the old ones."""
    kid = client.post("/_mock/keys/rotate").json["kid"]

    keys = client.get("/.well-known/jwks").json["keys"]
    assert [keys[0]["kid"], len(keys)] == [kid, 3]


def test_rotation_without_publishing_hides_the_new_kid(client):
    """The key set does not change, although tokens already name the new key."""
    before = client.get("/.well-known/jwks").json
    kid = client.post("/_mock/keys/rotate", json={"publish": False}).json["kid"]

    token = client.post("/_mock/token").json["token"]
    assert client.get("/.well-known/jwks").json == before
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"] == kid


def test_a_job_is_started_and_ended(client):
    """The request URL has the address that the caller used, and a job can be ended only once."""
    response = client.post("/_mock/jobs", json={"environment": "production"}, base_url="http://mock-idp:8080")
    job = response.json

    assert response.status_code == 201
    assert job["requestUrl"] == job["variables"]["ACTIONS_ID_TOKEN_REQUEST_URL"]
    assert job["requestUrl"].startswith("http://mock-idp:8080/232//idtoken/")
    ends = [client.delete(f"/_mock/jobs/{job['jobId']}").status_code for _ in range(2)]
    assert ends == [204, 404]


@pytest.mark.parametrize("host", ["github:3001", "mock_idp:3001", "[::1]:3001", "127.0.0.1"])
def test_a_job_is_asked_for_under_the_name_by_which_its_starter_came(client, host):
    """URLs use the name in `Host`, even a compose service with an underscore, which RFC 952 does not allow."""
    client.post("/_mock/faults", json={"endpoint": "token", "fault": "redirect"})
    job = client.post("/_mock/jobs", json={}, headers={"Host": host}).json

    assert job["requestUrl"].startswith(f"http://{host}/232//idtoken/")
    bearer = {"Host": host, "Authorization": f"Bearer {job['requestToken']}"}
    path = f"{job['requestUrl'].removeprefix(f'http://{host}')}&audience=a%2Fb"
    assert client.get(path, headers=bearer).headers["Location"] == f"http://{host}{path}"


def test_the_log_is_listed_and_reset(client):
    """The log is oldest first and has the fields of mock_idp/README.md; a reset empties it."""
    client.get("/.well-known/openid-configuration")
    client.get("/.well-known/jwks")

    log = client.get("/_mock/requests").json["data"]

    assert [entry["endpoint"] for entry in log] == ["discovery", "jwks"]
    assert list(log[0]) == ["at", "endpoint", "method", "status", "repository", "audience"]
    assert client.post("/_mock/reset").status_code == 204
    assert client.get("/_mock/requests").json == {"data": []}
