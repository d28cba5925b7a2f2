import html
import re

import jwt
import pytest

from mock_idp.faults.plan import PlannedFault
from mock_idp.http.app import create_app

FORM = {
    "repository": "octo-org/agent",
    "audience": "https://id.example.com",
    "event": "",
    "ref": "",
    "environment": "",
    "fault": "",
}


def _token(response):
    return html.unescape(re.search(r"<textarea[^>]*>(.*?)</textarea>", response.text, re.DOTALL)[1])


def test_the_page_shows_the_state(client, issuer):
    """The page shows issuer, keys, clock, faults and requests."""
    issuer.clock.freeze(1_790_000_000)
    client.post("/_mock/faults", json={"endpoint": "jwks", "status": 503, "times": 2})
    client.get("/.well-known/openid-configuration")

    text = client.get("/_mock/").text

    for shown in (
        issuer.url,
        issuer.ring.signing.kid,
        "2026-09-21T14:13:20Z, frozen",
        "jwks: 503",
        "2 more",
        "GET discovery",
    ):
        assert shown in text


def test_a_token_is_minted_by_form(client, issuer):
    """The minted token has the values of the form, and its claims are shown below it."""
    response = client.post("/_mock/", data=FORM | {"environment": "production", "immutableSub": "on"})

    token = _token(response)
    claims = jwt.decode(
        token,
        issuer.ring.signing.private.public_key(),
        ["RS256"],
        {"verify_exp": False, "verify_iat": False, "verify_nbf": False},
        audience=FORM["audience"],
    )
    assert claims["sub"].startswith("repo:octo-org@")
    assert "&#34;repository&#34;: &#34;octo-org/agent&#34;" in response.text


@pytest.mark.parametrize("fault", ["alg-none", "kid-null", "flattened", "deep-json", "payload-invalid-utf8"])
def test_a_forged_token_is_shown_too(client, fault):
    """A forged token is shown even if parts of it are not JSON."""
    response = client.post("/_mock/", data=FORM | {"fault": fault})

    assert response.status_code == 200
    assert _token(response)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("repository", "<script>alert(1)</script>", "`repository` must be OWNER/REPO."),
        ("event", "Push!", "`event` must be the name of an event"),
        ("fault", "no-such", "`fault` is not in the list."),
    ],
)
def test_a_wrong_field_is_explained_on_the_page(client, field, value, problem):
    """The error is shown, the input is kept, and none of it becomes markup."""
    response = client.post("/_mock/", data=FORM | {field: value})

    assert response.status_code == 400
    assert problem in html.unescape(response.text)
    assert "<script>" not in response.text


def test_nothing_of_another_host_and_no_other_script_may_run(client):
    """The content security policy allows only the page's own style sheet and script, with a new nonce each time."""
    first, second = (client.get("/_mock/") for _ in range(2))

    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert policy != second.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]{20,})'", policy)[1]
    assert re.findall("<script[^>]*>", first.text) == [f'<script nonce="{nonce}">']
    assert re.findall(r"(?:src|href)=\S+", first.text) == ['href="data:,">']
    assert not re.search(r"\son\w+=|\sstyle=|https?://(?!127\.0\.0\.1)", first.text)


def test_a_job_is_started_and_ended_by_form(client, issuer):
    """The job's variables are shown for a shell, with the address that the browser used."""
    response = client.post("/_mock/", data=FORM | {"do": "job", "environment": "production"})

    [started] = issuer.jobs()
    assert started.job.environment == "production"
    assert f"export ACTIONS_ID_TOKEN_REQUEST_TOKEN={started.request_token}" in _token(response)
    assert "export ACTIONS_ID_TOKEN_REQUEST_URL='http://localhost/232//idtoken/" in _token(response)
    assert f'value="{started.job_id}"' in response.text
    assert client.post("/_mock/", data={"do": "end-job", "jobId": started.job_id}).status_code == 303
    assert issuer.jobs() == []


@pytest.mark.parametrize(
    ("fields", "planned", "left"),
    [
        (
            {"endpoint": "jwks", "status": "503", "times": "2"},
            PlannedFault("jwks", status=503, times=2),
            2,
        ),
        (
            {"endpoint": "token", "plannedFault": "expired", "delay": "0.5", "status": ""},
            PlannedFault("token", fault="expired", delay=0.5),
            None,
        ),
    ],
)
def test_a_fault_is_set_and_cleared_by_form(client, issuer, fields, planned, left):
    """Empty fields of the form get the API's defaults."""
    response = client.post("/_mock/", data={"do": "plan-fault", **fields})

    assert (response.status_code, response.headers["Location"]) == (303, "./")
    assert issuer.pending_faults() == [(planned, left)]
    assert client.post("/_mock/", data={"do": "clear-faults"}).status_code == 303
    assert issuer.pending_faults() == []


def test_the_clock_is_moved_by_form(client, issuer, now):
    """The form moves the clock ahead and back, freezes it, and returns it to real time."""
    for fields, offset, frozen in (
        ({"do": "shift", "offset": "3600"}, 3600, False),
        ({"do": "freeze"}, 3600, True),
        ({"do": "shift", "offset": "-60.5"}, -60.5, False),
        ({"do": "real-time"}, 0, False),
    ):
        assert client.post("/_mock/", data=fields).status_code == 303
        assert (issuer.clock.offset, issuer.clock.is_frozen) == (offset, frozen)
    assert issuer.clock.now() == now


def test_keys_are_rotated_by_form(client, issuer):
    """The form rotates keys with overlap or hidden, publishes the hidden key, and retires the others."""

    def kids():
        return issuer.ring.signing.kid, [key.kid for key in issuer.ring.published]

    first, published = kids()
    client.post("/_mock/", data={"do": "rotate"})
    second, both = kids()
    assert (second != first, set(both)) == (True, {second, *published})
    client.post("/_mock/", data={"do": "rotate-hidden"})
    third, shown = kids()
    assert third not in shown
    client.post("/_mock/", data={"do": "publish"})
    assert third in kids()[1]
    client.post("/_mock/", data={"do": "retire"})
    assert kids() == (third, [third])


def test_the_log_is_reset_by_form(client, issuer):
    """A reset clears the log and the clock."""
    client.get("/.well-known/jwks")
    client.post("/_mock/", data={"do": "shift", "offset": "60"})

    assert client.post("/_mock/", data={"do": "reset"}).status_code == 303
    assert (issuer.requests(), issuer.clock.offset) == ([], 0)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"do": "plan-fault", "endpoint": "jwks"}, "`fault` is missing"),
        ({"do": "plan-fault", "endpoint": "jwks", "plannedFault": "expired"}, "`fault` must be"),
        ({"do": "plan-fault", "endpoint": "x", "status": "500"}, "`endpoint` must be"),
        ({"do": "plan-fault", "endpoint": "jwks", "status": "many"}, "`status` must be a number"),
        ({"do": "plan-fault", "endpoint": "jwks", "status": "500.5"}, "`status` must be a positive integer"),
        ({"do": "shift", "offset": "nan"}, "`offset` must be a number"),
        ({"do": "shift", "offset": "inf"}, "`offset` must be a number"),
        ({"do": "shift"}, "`offset` must be a number"),
        ({"do": "job", "repository": "x"}, "`repository` must be OWNER/REPO."),
        ({"do": "dance"}, "`do` must be"),
    ],
)
def test_a_wrong_value_changes_nothing(client, issuer, fields, problem):
    """A wrong value changes nothing, and the page shows the API's message."""
    response = client.post("/_mock/", data=fields)

    assert (response.status_code, issuer.pending_faults(), issuer.clock.offset) == (400, [], 0)
    assert problem in html.unescape(response.text)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost", 200),
        ("http://evil.example.com", 403),
        ("null", 403),
        ("http://localhost:1", 403),
    ],
)
def test_a_page_of_another_origin_cannot_control_the_mock(client, origin, status):
    """Any web page can post a form to 127.0.0.1, but the browser sends the page's origin."""
    headers = {"Origin": origin} if origin else {}

    assert client.post("/_mock/clock", data='{"offset": 0}', headers=headers).status_code == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:3001", 200),
        ("[::1]:3001", 200),
        ("192.0.2.7", 200),
        ("localhost:3001", 200),
        ("LocalHost.:3001", 200),
        ("mock.localhost", 200),
        ("github:3001", 200),
        ("host.docker.internal:3001", 200),
        ("mock.ci.svc.cluster.local", 200),
        ("token.actions.githubusercontent.com", 200),
        ("mock_idp:3001", 200),
        ("evil_page.example.com", 403),
        ("evil.example.com", 403),
        ("evil.example.com:3001", 403),
        ("127.0.0.1.evil.example.com", 403),
        ("notlocalhost.com", 403),
        ("localhost.evil.com", 403),
        ("xlocal.com", 403),
        ("sub.token.actions.githubusercontent.com", 403),
    ],
)
def test_a_page_whose_name_was_turned_to_this_machine_cannot_control_the_mock(make_issuer, host, status):
    """In a DNS rebinding attack `Origin` and `Host` are equal, and a GET has no `Origin` at all."""
    names = {"token.actions.githubusercontent.com"}
    client = create_app(make_issuer(), names=names).test_client()
    headers = {"Host": host, "Origin": f"http://{host}"}

    assert client.post("/_mock/token", data="{}", headers=headers).status_code == status
    for path in ("/_mock/", "/_mock/requests", "/_mock/state"):
        assert client.get(path, headers={"Host": host}).status_code == status
    assert client.get("/.well-known/jwks", headers={"Host": host}).status_code == 200


def test_with_tls_the_certificate_has_told_the_name(client):
    """With TLS any name is allowed: the browser sends no request if the certificate is for another name."""
    url = "https://mock.example.com/"

    assert client.post("/_mock/token", base_url=url, headers={"Origin": url.rstrip("/")}).status_code == 200


def test_a_clock_beyond_all_calendars_is_shown_as_a_number(client):
    """A frozen clock may have a time outside the calendar."""
    client.post("/_mock/clock", json={"freeze": 1e300})

    assert client.get("/_mock/").status_code == 200
    assert client.get("/_mock/state").json["clock"]["time"] is None
