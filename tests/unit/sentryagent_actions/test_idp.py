"""The client of the provider, and which of its responses are trusted."""

import httpx
import pytest

from sentryagent_actions.errors import InvalidResponseError, ProviderUnreachableError, TlsError
from sentryagent_actions.idp import AccessToken, IdentityProvider
from sentryagent_actions.origin import Origin

TOKEN = AccessToken("t" * 30, 300, "2027-01-15T09:00:00Z", "agents:write", "")


def provider(world, api_url="https://idp.example.com"):
    return IdentityProvider(Origin.from_base_url(api_url), world.network(), [].append)


@pytest.mark.parametrize(
    ("answer", "audience"),
    [
        ({"json": {"audience": "https://idp.example.com"}}, "https://idp.example.com"),
        ({"json": {"audience": "https://IDP.example.com/agents"}}, "https://IDP.example.com/agents"),
        ({"json": {"audience": "https://idp.example.com:443/"}}, "https://idp.example.com:443/"),
        ({"json": {"audience": "sts.amazonaws.com"}}, "https://idp.example.com"),
        ({"json": {"audience": "api://AzureADTokenExchange"}}, "https://idp.example.com"),
        ({"json": {"audience": "https://sts.amazonaws.com"}}, "https://idp.example.com"),
        ({"json": {"audience": "https://idp.example.com:8443"}}, "https://idp.example.com"),
        ({"json": {"audience": "http://idp.example.com"}}, "https://idp.example.com"),
        ({"json": {"audience": "https://idp.example.com@sts.amazonaws.com"}}, "https://idp.example.com"),
        ({"json": {"audience": "https://idp.example.com\\@sts.amazonaws.com"}}, "https://idp.example.com"),
        ({"json": {"audience": ["https://idp.example.com"]}}, "https://idp.example.com"),
        ({"json": {}}, "https://idp.example.com"),
        ({"json": []}, "https://idp.example.com"),
        ({"text": "<html>"}, "https://idp.example.com"),
        ({"status": 404, "text": "no"}, "https://idp.example.com"),
        ({"status": 401, "json": {"code": "UNAUTHORIZED"}}, "https://idp.example.com"),
        ({"status": 302, "headers": {"location": "https://evil.example"}}, "https://idp.example.com"),
    ],
)
def test_audience_is_believed_for_the_providers_own_host_only(world, answer, audience):
    """A hostile `api-url` cannot make the action request a token that opens a cloud account."""
    world.script.on("GET /oidc/audience", world.answer(**answer))
    assert provider(world).audience() == audience


def test_audience_waits_for_a_busy_provider(world):
    """An unreachable provider is retried, because its audience cannot be guessed."""
    down = world.answer(error=httpx.ConnectError("refused"))
    own = world.answer(json={"audience": "https://idp.example.com/a"})
    world.script.on("GET /oidc/audience", down, own)
    assert provider(world).audience() == "https://idp.example.com/a"
    world.script.on("GET /oidc/audience", *[down] * 40)
    with pytest.raises(ProviderUnreachableError):
        provider(world).audience()


@pytest.mark.parametrize(
    ("api_url", "mounted", "expected"),
    [
        ("http://127.0.0.1:3000", True, True),
        ("http://localhost:3000", True, True),
        ("http://127.0.0.1:3000", False, False),
        ("https://idp.example.com", True, False),
    ],
)
def test_loopback_is_explained_in_the_container_of_an_action(
    world, monkeypatch, tmp_path, api_url, mounted, expected
):
    """The loopback hint appears only inside an action's container; elsewhere the provider is simply down."""
    monkeypatch.setattr("sentryagent_actions.idp._WORKSPACE", tmp_path if mounted else tmp_path / "workspace")
    refused = world.answer(error=httpx.ConnectError("refused"))
    world.script.on("GET /oidc/audience", *[refused] * 40)
    with pytest.raises(ProviderUnreachableError) as failure:
        provider(world, api_url).audience()
    assert ("this action's own container" in failure.value.remedy) is expected


def test_audience_does_not_pass_over_a_distrusted_certificate(world):
    """An untrusted certificate ends the run at the first call."""
    error = httpx.ConnectError("tls")
    error.__cause__ = __import__("ssl").SSLCertVerificationError("self-signed certificate")
    world.script.on("GET /oidc/audience", world.answer(error=error))
    with pytest.raises(TlsError, match="self-signed"):
        provider(world).audience()


def test_agent_is_found_by_its_name_without_case(world):
    """The list may contain other agents; only an exact match, ignoring case, is used."""
    data = [world.agent(email="other@example.com"), world.agent(email="Bot@example.com")]
    world.script.on("GET /agents", world.answer(json={"data": data, "total": 2}))
    agent = provider(world).agent_named(TOKEN, "bot@Example.com")
    assert agent is not None
    assert agent.fields["email"] == "Bot@example.com"
    assert world.script.requests[0].query == {"email": ["bot@Example.com"]}


@pytest.mark.parametrize("body", [{"data": []}, {"data": None}, {"data": ["x"]}, {}])
def test_no_agent_of_that_name(world, body):
    """A list without the name, even a malformed one, gives no agent."""
    world.script.on("GET /agents", world.answer(json=body))
    assert provider(world).agent_named(TOKEN, "bot@example.com") is None


@pytest.mark.parametrize(
    "record", [{"agentId": "7"}, {"agentId": None}, {"status": None}, {"status": "x\ny"}]
)
def test_agent_without_id_or_status_is_refused(world, record):
    """An agent without a valid id or status is an invalid response."""
    world.script.on("POST /agents", world.answer(status=201, json=world.agent(**record)))
    with pytest.raises(InvalidResponseError):
        provider(world).create_agent(TOKEN, {"email": "bot@example.com"})


def test_revocation_is_the_tokens_own(world):
    """A token revokes itself: it is both the form field and the bearer (RFC 7009)."""
    world.script.on("POST /token/revoke", world.answer(json={}))
    provider(world).revoke(TOKEN.value)
    (request,) = world.script.requests
    assert (request.authorization, request.body) == (f"Bearer {TOKEN.value}", {"token": [TOKEN.value]})


def test_client_works_over_a_wsgi_application(world):
    """The provider can be a WSGI application in the same process."""

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'{"audience": "http://localhost/x"}']

    world.script = world.transport = httpx.WSGITransport(app=application)
    assert provider(world, "http://localhost").audience() == "http://localhost/x"


def test_token_has_no_repr():
    """A token is not readable in a traceback or a log line."""
    assert "ttt" not in repr(TOKEN)
