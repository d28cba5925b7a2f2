"""The mock over real sockets, with independent clients and verifiers."""

import gc
import json
import socket
import threading
from importlib.metadata import version
from urllib.parse import quote, urlsplit

import httpx
import jwt
import pytest

import mock_idp
from mock_idp.client import MockClient
from mock_idp.job import Job
from mock_idp.request_log import LogOverflowError
from mock_idp.server import MockIdp
from mock_idp.strict_fields import InvalidFieldError

AUDIENCE = "https://id.example.com"


def _fetch(job, audience=AUDIENCE):
    """Request a token as the toolkit does, by appending the audience to the URL."""
    url = f"{job['requestUrl']}&audience={quote(audience, safe='')}"
    return httpx.get(url, headers={"Authorization": f"Bearer {job['requestToken']}"})


def _verified(idp, token, audience=AUDIENCE):
    """Verify a token as a relying party does, starting at the discovery document."""
    document = httpx.get(f"{idp.issuer}/.well-known/openid-configuration").json()
    key = jwt.PyJWKClient(document["jwks_uri"]).get_signing_key_from_jwt(token)
    return jwt.decode(token, key, ["RS256"], audience=audience, issuer=document["issuer"])


def test_a_requested_token_is_verified_by_an_independent_library(idp):
    """An independent library verifies a requested token with the discovery document and the key set."""
    job = idp.job(repository="octo-org/agent", environment="production")

    claims = _verified(idp, _fetch(job).json()["value"])

    assert claims["sub"] == "repo:octo-org/agent:environment:production"


def test_a_minted_token_is_verified_too(idp):
    """A token that is minted in process verifies too."""
    assert _verified(idp, idp.mint(audience=AUDIENCE, actor="mona"))["actor"] == "mona"


@pytest.mark.parametrize("issuer", ["/octo-enterprise", "/_services/token"])
def test_an_issuer_with_a_path_is_discovered_under_it(issuer, ring):
    """An issuer with a path, as for enterprises with a slug and GHES, is discovered under that path."""
    with MockIdp(issuer=issuer, ring=ring) as idp:
        assert idp.issuer == idp.url + issuer
        assert _verified(idp, idp.mint(audience=AUDIENCE))["iss"] == idp.issuer


def test_a_token_survives_a_rotation_that_keeps_the_old_key(idp):
    """Tokens of the old key stay valid after a rotation; tokens of an unpublished key are invalid."""
    before = idp.mint(audience=AUDIENCE)
    idp.state.rotate()
    after = idp.mint(audience=AUDIENCE)
    idp.state.rotate(publish=False)
    hidden = idp.mint(audience=AUDIENCE)

    assert _verified(idp, before)["iss"] == _verified(idp, after)["iss"] == idp.issuer
    with pytest.raises(jwt.PyJWKClientError):
        _verified(idp, hidden)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset", httpx.ReadError),
        ("truncated", httpx.RemoteProtocolError),
    ],
)
def test_a_broken_connection_is_one_on_the_wire(idp, fault, error):
    """A planned connection fault breaks the real connection, and the next request works."""
    idp.plan_fault("jwks", fault=fault, times=1)
    url = f"{idp.url}/.well-known/jwks"

    with pytest.raises(error):
        httpx.get(url)
    assert httpx.get(url).status_code == 200


def test_a_huge_answer_arrives_whole(idp):
    """A huge response is sent completely; only a client's own limit stops it."""
    idp.plan_fault("jwks", fault="huge", times=1)

    assert len(httpx.get(f"{idp.url}/.well-known/jwks").content) > 16 << 20


def test_a_redirect_is_followed_only_by_clients_that_want_to(idp):
    """A client that follows no redirects sends one request; the log would show a second one."""
    idp.plan_fault("token", fault="redirect", times=1)
    job = idp.job()

    assert _fetch(job).status_code == 302
    assert [entry["status"] for entry in idp.state.requests()] == [302]


def test_the_control_api_and_the_python_api_are_one(idp):
    """A fault that is planned over HTTP affects a job that is started in Python, and the log in Python shows it."""
    httpx.post(f"{idp.url}/_mock/faults", json={"endpoint": "token", "status": 503, "times": 1})
    job = idp.job()

    assert [_fetch(job).status_code for _ in range(2)] == [503, 200]
    assert [entry["status"] for entry in idp.state.requests()] == [503, 200]


def test_requests_are_answered_while_another_one_is_late(idp):
    """A delayed request does not block others."""
    idp.plan_fault("jwks", delay=600, times=1)
    late = threading.Thread(target=_ask_and_hang_up, args=(idp,), daemon=True)
    late.start()
    late.join()

    assert httpx.get(f"{idp.url}/.well-known/openid-configuration").status_code == 200


def _ask_and_hang_up(idp):
    """Send a complete request and close the connection without reading the response."""
    host, port = idp.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /.well-known/jwks HTTP/1.1\r\nHost: mock\r\n\r\n")


def test_a_port_in_use_is_an_error_of_the_system(idp):
    """A port in use raises an OSError and does not end the process."""
    port = int(idp.url.rpartition(":")[2])

    with pytest.raises(OSError, match="in use"):
        MockIdp(port=port)


@pytest.mark.parametrize(
    "issuer",
    [
        "octo",
        "ftp://a.example/x",
        "https://a.example/",
        "/x/",
        "//a.example",
        "/x?y=1",
        "/a/../b",
        "https://",
    ],
)
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_issuer_that_no_verifier_can_find_is_refused(issuer, ring):
    """An invalid issuer is refused, and its port is released."""
    with pytest.raises(InvalidFieldError, match="`issuer` must be an http"):
        MockIdp(issuer=issuer, ring=ring)
    gc.collect()


@pytest.mark.parametrize(
    ("first", "others"),
    [("http://github.example.com:3001", ()), ("", ["https://ghe.example.com/_services/token"])],
)
def test_a_mock_is_controlled_by_the_names_of_its_issuers(first, others, ring):
    """The control API accepts the names of all issuers in the Host header, and no other name."""
    with MockIdp(issuer=first, ring=ring) as idp:
        urls = [idp.url, *(idp.add_issuer(other).url for other in others)]
        name = urlsplit(others[0] if others else first).hostname
        for url in urls:
            hosts = {name: 200, f"{name}.evil.example": 403}
            for host, status in hosts.items():
                assert httpx.get(f"{url}/_mock/state", headers={"Host": host}).status_code == status


def test_two_mocks_never_share_a_key():
    """Two mocks have different kids, so one does not know the other's tokens."""
    with MockIdp() as one, MockIdp() as other:
        mine, theirs = ({key["kid"] for key in it.state.ring.key_set()["keys"]} for it in (one, other))

    assert not mine & theirs


def test_the_discovery_document_is_plain_json(idp):
    """The discovery document is JSON with the right content type."""
    answer = httpx.get(f"{idp.url}/.well-known/openid-configuration")

    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.text)["issuer"] == idp.url


def test_the_package_itself_has_the_class():
    """The package exports `MockIdp` and the other names that tests need; an unknown name raises."""
    assert mock_idp.MockIdp is MockIdp
    assert (mock_idp.MockClient, mock_idp.Job, mock_idp.InvalidFieldError) == (
        MockClient,
        Job,
        InvalidFieldError,
    )
    assert mock_idp.LogOverflowError is LogOverflowError
    assert mock_idp.__version__ == version("sentryagent-mock-idp")
    with pytest.raises(AttributeError, match="has no attribute 'MockIdb'"):
        _ = mock_idp.MockIdb
