import html
import re

import jwt
import pytest

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
    """Issuer, keys, clock, faults and what was asked for."""
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
    """It carries what the fields say, and its claims stand below it."""
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
    """Also where a part of it is no JSON at all."""
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
    """What was typed stays, and nothing of it is markup."""
    response = client.post("/_mock/", data=FORM | {field: value})

    assert response.status_code == 400
    assert problem in html.unescape(response.text)
    assert "<script>" not in response.text


def test_nothing_of_another_host_and_no_script_may_run(client):
    """The browser is told so, with a nonce for the one style sheet that is new each time."""
    first, second = (client.get("/_mock/") for _ in range(2))

    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert policy != second.headers["Content-Security-Policy"]
    assert not re.search(r"(?:src|href)=|<script", first.text)


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
    """Any web page can send a form to 127.0.0.1; the browser says where it comes from."""
    headers = {"Origin": origin} if origin else {}

    assert client.post("/_mock/clock", data='{"offset": 0}', headers=headers).status_code == status


def test_a_clock_beyond_all_calendars_is_shown_as_a_number(client):
    """A frozen clock may stand anywhere."""
    client.post("/_mock/clock", json={"freeze": 1e300})

    assert client.get("/_mock/").status_code == 200
    assert client.get("/_mock/state").json["clock"]["time"] is None
