"""The services in docs/verify-tokens.md, run as processes, verify good and hostile tokens."""

import asyncio
import base64
import json
import re
import time

import httpx
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from kit.issuer import Issuer
from kit.node import EXAMPLES
from kit.processes import ROOT, free_port
from kit.tokens import claims_of
from kit.verifiers import DEPLOY, READ, call_of, serving_example

pytestmark = pytest.mark.xdist_group("verify")

LAYERS = {"flask": (), "fastapi": (), "node": pytest.mark.node, "nginx": pytest.mark.ops, "mcp": ()}
EVERY = [pytest.param(name, marks=marks) for name, marks in LAYERS.items()]
UNAVAILABLE = {"flask": 503, "fastapi": 503, "node": 503, "nginx": 500, "mcp": 500}
AFTER_REVOCATION = {"flask": 200, "fastapi": 200, "node": 200, "nginx": 401, "mcp": 200}


@pytest.fixture(scope="module")
def issuer(services, provider_program, tmp_path_factory):
    """A provider with services, whose signing key is available for forgeries."""
    github, _ = services
    folder = tmp_path_factory.mktemp("issuer")
    database = folder / "provider.db"

    def id_token(repository, audience):
        claims = {"repository": repository, "aud": audience}
        return github.control("POST", "token", claims=claims).json()["token"]

    url = f"sqlite:///{database}"
    with provider_program(folder / "sentryagent-idp.log", github.url, DATABASE_URL=url) as served:
        yield Issuer(served, database, id_token)


@pytest.fixture(scope="module", params=EVERY)
def running(request, issuer, tmp_path_factory):
    """One of the five services."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    with serving_example(name, issuer.url, issuer.client_of, folder) as service:
        yield service


@pytest.fixture
def service(running, transcript):
    """The service; its log during the test is searched for tokens."""
    before = running.log.stat().st_size
    yield running
    transcript.add(running.log.name, running.log.read_bytes()[before:].decode())


def nearly(audience):
    """Audiences that resemble the given one."""
    names = {
        audience + "/",
        audience[:-1],
        audience.upper(),
        audience.replace("example.com", "example.com:443"),
        audience.replace("http://", "https://"),
        audience + ".attacker.example",
    }
    return sorted(names - {audience})


def assert_refused(answer):
    """Assert that the token was refused with 401 and RFC 6750's error."""
    assert (answer.status, answer.error) == (401, "invalid_token"), answer


@pytest.mark.parametrize("scope", [READ, DEPLOY])
@pytest.mark.parametrize("scopes", [(READ, DEPLOY), (DEPLOY, "other", READ)])
def test_a_good_token_is_let_in_and_its_agent_is_known(scope, scopes, service, issuer):
    """A token is accepted if its scopes contain the required one, in any order."""
    token = issuer.token(service.audience, *scopes)

    answer = service.ask(token, scope)

    assert (answer.status, answer.challenges) == (200, ())
    assert claims_of(token)["sub"] in answer.text


def test_the_scheme_is_read_without_case(service, issuer):
    """The scheme is case-insensitive: `bearer` works like `Bearer` (RFC 9110, 11.1)."""
    token = issuer.token(service.audience, READ)
    assert service.ask(None, READ, Authorization=f"bearer {token}").status == 200


@pytest.mark.parametrize(
    "scope",
    [
        "",
        "deploy:",
        "deploy",
        "deploy:production-eu",
        "pre-deploy:production",
        "DEPLOY:PRODUCTION",
        "deploy:*",
        "deploy:production,deploy:read",
    ],
)
def test_scopes_are_words(scope, service, issuer):
    """Scopes are compared as whole words and case-sensitively."""
    answer = service.ask(issuer.sign({"aud": service.audience, "scope": scope}), DEPLOY)
    assert (answer.status, answer.error) == (403, "insufficient_scope")


def test_without_the_scope_the_answer_names_it(service, issuer):
    """Without the required scope, the response is a 403 that names it (RFC 6750, 3.1)."""
    answer = service.ask(issuer.token(service.audience, READ), DEPLOY)
    assert (answer.status, answer.error) == (403, "insufficient_scope")
    assert answer.challenges[0].parameters["scope"] == DEPLOY
    assert "agent" not in answer.text


def test_a_token_for_another_service_is_refused(service, issuer):
    """Tokens for every other example's service and for the provider itself are refused."""
    others = {f"https://{name}.example.com" for name in LAYERS} - {service.audience}
    for audience in sorted(others):
        assert_refused(service.ask(issuer.token(audience, READ, DEPLOY), READ))
    assert_refused(service.ask(issuer.sign({"aud": issuer.url, "scope": READ}), READ))


def test_a_token_for_a_name_that_is_nearly_the_services_is_refused(service, issuer):
    """Audiences are compared character by character, including case, port and slash (RFC 8707, 2)."""
    for audience in [*nearly(service.audience), ""]:
        assert_refused(service.ask(issuer.sign({"aud": audience, "scope": READ}), READ))


CHANGED_CLAIMS = {
    "expired": lambda now: {"exp": now - 31},
    "not yet valid": lambda now: {"nbf": now + 90},
    "another issuer": lambda _: {"iss": "https://idp.attacker.example"},
    "an issuer with a slash": lambda _: {"iss": "/"},
    "no issuer": lambda _: {"iss": ...},
    "no audience": lambda _: {"aud": ...},
    "no end": lambda _: {"exp": ...},
    "an end that is text": lambda _: {"exp": "tomorrow"},
    "no scope": lambda _: {"scope": ...},
    "no subject": lambda _: {"sub": ...},
    "no id": lambda _: {"jti": ...},
}


@pytest.mark.parametrize("changes", CHANGED_CLAIMS.values(), ids=CHANGED_CLAIMS.keys())
def test_claims_that_are_wrong_are_refused(changes, service, issuer):
    """Wrong claims are refused although the provider's own key signed them."""
    claims = {"aud": service.audience, "scope": f"{READ} {DEPLOY}"} | changes(int(time.time()))
    if claims.get("iss") == "/":
        claims["iss"] = f"{issuer.url}/"
    assert_refused(service.ask(issuer.sign(claims), READ))


@pytest.mark.parametrize("typ", ["JWT", "at+JWT+x", "id+jwt", "", ...])
def test_another_type_of_token_is_refused(typ, service, issuer):
    """A token of another type, signed by the same key, gives no access (RFC 9068, 4)."""
    claims = {"aud": service.audience, "scope": READ}
    assert_refused(service.ask(issuer.sign(claims, typ=typ), READ))


def base64url(octets):
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def with_header(token, **changes):
    """The same token with another header and the original signature."""
    header = json.dumps(jwt.get_unverified_header(token) | changes).encode()
    return f"{base64url(header)}.{token.partition('.')[2]}"


def signed_with_the_public_key(token, key):
    """An HS256 token with the published key as its secret: algorithm confusion (RFC 8725, 2.1)."""
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    content = with_header(token, alg="HS256").rpartition(".")[0]
    return f"{content}.{base64url(jwt.algorithms.HMACAlgorithm('sha256').sign(content.encode(), pem))}"


STRANGER = generate_private_key(SECP256R1())


def signed_by_a_stranger(token, **header):
    head = {"typ": "at+jwt", "kid": jwt.get_unverified_header(token)["kid"]} | header
    given = {name: value for name, value in head.items() if value is not ...}
    return jwt.encode(claims_of(token), STRANGER, "ES256", given)


def stranger_jwk():
    return json.loads(jwt.algorithms.ECAlgorithm.to_jwk(STRANGER.public_key()))


FORGERIES = {
    "cut": lambda token, _: token[:-8],
    "another signature": lambda token, _: token[:-8] + "AAAAAAAA",
    "none": lambda token, _: with_header(token, alg="none").rpartition(".")[0] + ".",
    "none with the signature": lambda token, _: with_header(token, alg="none"),
    "None": lambda token, _: with_header(token, alg="NonE").rpartition(".")[0] + ".",
    "HS256 with the public key": signed_with_the_public_key,
    "another algorithm": lambda token, _: with_header(token, alg="RS256"),
    "a stranger's key": lambda token, _: signed_by_a_stranger(token),
    "an unknown key": lambda token, _: signed_by_a_stranger(token, kid="unknown"),
    "no key id": lambda token, _: signed_by_a_stranger(token, kid=...),
    "a key in the header": lambda token, _: signed_by_a_stranger(token, jwk=stranger_jwk()),
    "a place of keys": lambda token, _: signed_by_a_stranger(token, jku="https://attacker.example/jwks"),
    "an unknown extension": lambda token, _: with_header(token, crit=["x"], x=1),
    "no token": lambda *_: "not.a.token",
    "one word": lambda *_: "token",
    "dots": lambda *_: "..",
    "long": lambda *_: "A" * 7000,
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_forgeries_are_refused(forge, service, issuer):
    """A token that the provider's key did not sign in exactly this form is refused."""
    genuine = issuer.sign({"aud": service.audience, "scope": f"{READ} {DEPLOY}"})
    assert service.ask(genuine, READ).status == 200
    assert_refused(service.ask(forge(genuine, issuer.key), READ))


def test_githubs_own_token_is_refused(service, github):
    """GitHub's ID token gives no access, even if it was requested for the service's audience."""
    claims = {"aud": service.audience, "scope": f"{READ} {DEPLOY}"}
    token = github.control("POST", "token", claims=claims).json()["token"]
    assert_refused(service.ask(token, READ))


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic YTpi", "Token x"])
def test_without_a_token_the_answer_asks_for_one(authorization, service):
    """A request without a token gets a 401 challenge without an error code (RFC 6750, 3.1); only MCP's library adds one."""
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = service.ask(None, READ, **headers)
    assert (answer.status, answer.error) == (401, "invalid_token" if service.name == "mcp" else None)


def test_clocks_may_differ_a_little(service, issuer):
    """A token from a provider whose clock is 20 seconds ahead is accepted."""
    ahead = int(time.time()) + 20
    token = issuer.sign({"aud": service.audience, "scope": READ, "iat": ahead, "nbf": ahead})
    assert service.ask(token, READ).status == 200


def test_who_introspects_sees_a_revocation(service, issuer):
    """Only the service that introspects sees a revocation; the others accept the token until it expires."""
    token = issuer.token(service.audience, READ)
    before = service.ask(token, READ).status
    issuer.revoke(token)
    assert (before, service.ask(token, READ).status) == (200, AFTER_REVOCATION[service.name])


@pytest.mark.parametrize("name", EVERY)
def test_nobody_is_let_in_while_the_provider_is_away(name, issuer, tmp_path):
    """While the provider is down, requests fail, but not with a 401, after which the agent would discard a valid token."""
    away = f"http://127.0.0.1:{free_port()}"
    with serving_example(name, away, lambda _: ("id", "secret"), tmp_path) as service:
        answer = service.ask(issuer.sign({"iss": away, "aud": service.audience, "scope": READ}), READ)
    assert answer.status == UNAVAILABLE[name]
    assert "agent" not in answer.text


@pytest.fixture(scope="module")
def nginx(issuer, tmp_path_factory):
    """The service behind nginx, whose backend echoes the request that reached it."""
    with serving_example("nginx", issuer.url, issuer.client_of, tmp_path_factory.mktemp("nginx")) as service:
        yield service


@pytest.mark.ops
def test_the_backend_behind_nginx_trusts_the_agents_name(nginx, issuer):
    """The backend gets the agent's id from nginx, without the sender's own headers and without the token."""
    token = issuer.token(nginx.audience, READ)
    arrived = json.loads(nginx.ask(token, READ, **{"X-Agent": "admin", "x_agent": "admin"}).text)
    assert arrived["agent"] == [claims_of(token)["sub"]]
    assert arrived["authorization"] is None


@pytest.mark.ops
@pytest.mark.parametrize("spoofed", ["X-Required-Scope", "X-HTTP-Method-Override"])
def test_the_sender_does_not_choose_the_scope_that_nginx_needs(spoofed, nginx, issuer):
    """Only nginx's location decides the required scope, not the sender's headers."""
    answer = nginx.ask(issuer.token(nginx.audience, READ), DEPLOY, **{spoofed: READ})
    assert (answer.status, answer.error) == (403, "insufficient_scope")


@pytest.mark.ops
def test_nobody_but_nginx_asks_about_tokens(nginx, issuer):
    """The introspection location is not reachable from outside."""
    headers = {"Authorization": f"Bearer {issuer.token(nginx.audience, READ)}"}
    assert httpx.get(f"{nginx.url}/introspect", headers=headers, trust_env=False).status_code == 404


@pytest.mark.ops
def test_a_client_of_another_service_opens_nothing(issuer, tmp_path):
    """With another service's client, configured by mistake, tokens for that service are active but refused."""
    other = "https://other.example.com"
    with serving_example("nginx", issuer.url, lambda _: issuer.client_of(other), tmp_path) as service:
        assert_refused(service.ask(issuer.token(other, READ), READ))


@pytest.fixture(scope="module")
def mcp_server(issuer, tmp_path_factory):
    """The MCP server."""
    with serving_example("mcp", issuer.url, issuer.client_of, tmp_path_factory.mktemp("mcp")) as service:
        yield service


def test_the_mcp_server_says_who_issues_its_tokens(mcp_server, issuer):
    """The 401's metadata names the provider and the scopes (RFC 9728)."""
    challenge = mcp_server.ask(None, READ).challenges[0]
    metadata = httpx.get(challenge.parameters["resource_metadata"], trust_env=False).json()
    assert metadata["resource"] == mcp_server.audience
    assert metadata["authorization_servers"] == [issuer.url]
    assert metadata["scopes_supported"] == [READ, DEPLOY]
    refused = mcp_server.ask(issuer.token(mcp_server.audience, READ), DEPLOY).challenges[0]
    assert refused.parameters["resource_metadata"] == challenge.parameters["resource_metadata"]


def call_with_the_sdk(service, token, *tools):
    """Call tools with the MCP SDK's client, as an agent does; return the tools' names and the results."""

    async def call():
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            Client(streamable_http_client(service.url, http_client=http)) as client,
        ):
            listed = await client.list_tools()
            return [tool.name for tool in listed.tools], [await client.call_tool(tool) for tool in tools]

    return asyncio.run(call())


def test_an_mcp_client_calls_the_tools_that_its_token_has_the_scopes_of(mcp_server, issuer):
    """The MCP SDK's client, in its preferred protocol version, calls the tools for which its token has the scopes."""
    token = issuer.token(mcp_server.audience, READ, DEPLOY)
    names, answers = call_with_the_sdk(mcp_server, token, "list_deployments", "deploy")
    assert names == ["list_deployments", "deploy"]
    assert [claims_of(token)["sub"] in answer.content[0].text for answer in answers] == [True, True]


HOSTILE_CALLS = {
    "no such tool": call_of("drop_everything"),
    "no name": call_of(None),
    "a list of names": call_of(["list_deployments", "deploy"]),
    "a batch": [call_of("list_deployments"), call_of("deploy")],
    "no parameters": {"jsonrpc": "2.0", "id": 1, "method": "tools/call"},
}


@pytest.mark.parametrize("call", HOSTILE_CALLS.values(), ids=HOSTILE_CALLS.keys())
def test_the_mcp_server_runs_no_tool_that_it_has_no_scope_for(call, mcp_server, issuer):
    """No form of message runs a tool for which the token lacks the scope."""
    token = issuer.token(mcp_server.audience, READ)
    text = post_to_mcp(mcp_server, token, json.dumps(call)).text
    assert "may" not in text
    assert '"error"' in text


@pytest.mark.parametrize("names", ['"name": "list_deployments", "name": "deploy"', '"n\\u0061me": "deploy"'])
def test_the_mcp_server_checks_the_name_of_the_tool_that_runs(names, mcp_server, issuer):
    """In a message that two parsers could read differently, the checked tool name is the one that runs."""
    token = issuer.token(mcp_server.audience, READ)
    call = f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {{{names}, "arguments": {{}}}}}}'
    assert "may deploy" not in post_to_mcp(mcp_server, token, call).text


def post_to_mcp(service, token, body):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    headers["Accept"] = "application/json, text/event-stream"
    return httpx.post(service.url, headers=headers, content=body, trust_env=False)


def test_the_document_shows_the_files_that_were_run():
    """Each code block in the document equals its file, and each file is in the document."""
    text = (ROOT / "docs" / "verify-tokens.md").read_text()
    shown = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", text, re.DOTALL))
    files = {path for path in EXAMPLES.iterdir() if path.is_file() and path.name != "package-lock.json"}
    assert shown == {f"examples/verify/{path.name}": path.read_text() for path in files}
    assert len(shown) == 8
