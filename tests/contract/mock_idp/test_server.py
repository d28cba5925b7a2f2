"""The mock over real sockets, asked by clients and verifiers that know nothing of it."""

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
    """Ask as the toolkit does: the audience is appended to the URL as it is."""
    url = f"{job['requestUrl']}&audience={quote(audience, safe='')}"
    return httpx.get(url, headers={"Authorization": f"Bearer {job['requestToken']}"})


def _verified(idp, token, audience=AUDIENCE):
    """Verify as a relying party does, from the discovery document on."""
    document = httpx.get(f"{idp.issuer}/.well-known/openid-configuration").json()
    key = jwt.PyJWKClient(document["jwks_uri"]).get_signing_key_from_jwt(token)
    return jwt.decode(token, key, ["RS256"], audience=audience, issuer=document["issuer"])


def test_a_requested_token_is_verified_by_an_independent_library(idp):
    """Request, discovery, key set and signature fit together."""
    job = idp.job(repository="octo-org/agent", environment="production")

    claims = _verified(idp, _fetch(job).json()["value"])

    assert claims["sub"] == "repo:octo-org/agent:environment:production"


def test_a_minted_token_is_verified_too(idp):
    """In-process tests need no request endpoint."""
    assert _verified(idp, idp.mint(audience=AUDIENCE, actor="mona"))["actor"] == "mona"


@pytest.mark.parametrize("issuer", ["/octo-enterprise", "/_services/token"])
def test_an_issuer_with_a_path_is_discovered_under_it(issuer, ring):
    """As enterprises with a slug and GHES have it."""
    with MockIdp(issuer=issuer, ring=ring) as idp:
        assert idp.issuer == idp.url + issuer
        assert _verified(idp, idp.mint(audience=AUDIENCE))["iss"] == idp.issuer


def test_a_token_survives_a_rotation_that_keeps_the_old_key(idp):
    """Tokens in flight stay good; those of an unpublished key are not."""
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
    """A client sees what it would see in the field, and the next request works."""
    idp.plan_fault("jwks", fault=fault, times=1)
    url = f"{idp.url}/.well-known/jwks"

    with pytest.raises(error):
        httpx.get(url)
    assert httpx.get(url).status_code == 200


def test_a_huge_answer_arrives_whole(idp):
    """Only the client's own limit stops it."""
    idp.plan_fault("jwks", fault="huge", times=1)

    assert len(httpx.get(f"{idp.url}/.well-known/jwks").content) > 16 << 20


def test_a_redirect_is_followed_only_by_clients_that_want_to(idp):
    """The log shows a second request where the credential was sent again."""
    idp.plan_fault("token", fault="redirect", times=1)
    job = idp.job()

    assert _fetch(job).status_code == 302
    assert [entry["status"] for entry in idp.state.requests()] == [302]


def test_the_control_api_and_the_python_api_are_one(idp):
    """What HTTP plans, the log in Python shows."""
    httpx.post(f"{idp.url}/_mock/faults", json={"endpoint": "token", "status": 503, "times": 1})
    job = idp.job()

    assert [_fetch(job).status_code for _ in range(2)] == [503, 200]
    assert [entry["status"] for entry in idp.state.requests()] == [503, 200]


def test_requests_are_answered_while_another_one_is_late(idp):
    """A delay holds up its own request alone."""
    idp.plan_fault("jwks", delay=600, times=1)
    late = threading.Thread(target=_ask_and_hang_up, args=(idp,), daemon=True)
    late.start()
    late.join()

    assert httpx.get(f"{idp.url}/.well-known/openid-configuration").status_code == 200


def _ask_and_hang_up(idp):
    """Send a whole request and wait for no answer."""
    host, port = idp.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /.well-known/jwks HTTP/1.1\r\nHost: mock\r\n\r\n")


def test_a_port_in_use_is_an_error_of_the_system(idp):
    """The caller learns it as an exception, not as the end of its process."""
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
    """As on the command line; the port is free again."""
    with pytest.raises(InvalidFieldError, match="`issuer` must be an http"):
        MockIdp(issuer=issuer, ring=ring)
    gc.collect()


@pytest.mark.parametrize(
    ("first", "others"),
    [("http://github.example.com:3001", ()), ("", ["https://ghe.example.com/_services/token"])],
)
def test_a_mock_is_controlled_by_the_names_of_its_issuers(first, others, ring):
    """Through the hosts file or `--resolve`; every issuer by the name of every other, and by no other name."""
    with MockIdp(issuer=first, ring=ring) as idp:
        urls = [idp.url, *(idp.add_issuer(other).url for other in others)]
        name = urlsplit(others[0] if others else first).hostname
        for url in urls:
            hosts = {name: 200, f"{name}.evil.example": 403}
            for host, status in hosts.items():
                assert httpx.get(f"{url}/_mock/state", headers={"Host": host}).status_code == status


def test_two_mocks_never_share_a_key():
    """A token of one is unknown to the other, by its kid."""
    with MockIdp() as one, MockIdp() as other:
        mine, theirs = ({key["kid"] for key in it.state.ring.key_set()["keys"]} for it in (one, other))

    assert not mine & theirs


def test_the_discovery_document_is_plain_json(idp):
    """Readable by anything, with a content type."""
    answer = httpx.get(f"{idp.url}/.well-known/openid-configuration")

    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(answer.text)["issuer"] == idp.url


def test_the_package_itself_has_the_class():
    """`from mock_idp import MockIdp` and what else tests need, and nothing by a wrong name."""
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
