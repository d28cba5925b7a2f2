"""How a service checks our tokens: the programs of docs/verify-tokens.md against a running provider."""

import base64
import json
import re
import sys
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from kit.node import beside_jose
from kit.processes import ROOT
from kit.tokens import claims_of, token_of

EXAMPLES = ROOT / "examples" / "verify"


@pytest.fixture(scope="session")
def jose(tmp_path_factory):
    """The example for Node beside its one dependency."""
    return ["node", beside_jose(EXAMPLES / "verify-with-jose.mjs", tmp_path_factory.mktemp("node"))]


@pytest.fixture(params=["pyjwt", pytest.param("jose", marks=pytest.mark.node)])
def verify(request, environment, transcript):
    """Run one of the two programs, with the token on its standard input."""
    python = [sys.executable, EXAMPLES / "verify_with_pyjwt.py"]
    command = python if request.param == "pyjwt" else request.getfixturevalue("jose")

    def verify(token, issuer, audience=None, scope="agents:read"):
        arguments = [*command, issuer, audience or issuer, scope]
        return transcript.run(*arguments, input=token, env=environment)

    return verify


@pytest.fixture
def token(trusted_agent, repository, github, provider):
    """A token of that agent, issued to a job of the test's repository."""
    claims = {"repository": repository, "aud": provider.url}
    id_token = github.control("POST", "token", claims=claims).json()["token"]
    exchange = provider.admin.post("/oidc/token", json={"token": id_token, "agentId": trusted_agent})
    return exchange.raise_for_status().json()["access_token"]


def forged(token, key, **changes):
    """The same token with other claims, signed by a key of ours under the provider's key id."""
    return jwt.encode(claims_of(token) | changes, key, "ES256", headers=jwt.get_unverified_header(token))


def with_header(token, **changes):
    """The same token with another header, its signature untouched."""
    header = json.dumps(jwt.get_unverified_header(token) | changes).encode()
    encoded = base64.urlsafe_b64encode(header).decode().rstrip("=")
    return f"{encoded}.{token.partition('.')[2]}"


def test_a_good_token_names_its_agent(verify, token, trusted_agent, provider):
    """The programs accept what the action issued."""
    done = verify(token, provider.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"200: agent {trusted_agent}\n", "")


def test_a_scope_that_was_not_granted_is_refused(verify, token, provider):
    """A good token may not do everything."""
    done = verify(token, provider.url, scope="agents:write")
    assert done.returncode == 1
    assert done.stderr == "403: the token lacks the scope agents:write\n"


def test_a_part_of_a_scope_is_no_scope(verify, token, provider):
    """Scopes are words, not prefixes."""
    assert verify(token, provider.url, scope="agents:").stderr.startswith("403: ")


def test_a_token_for_somebody_else_is_refused(verify, token, provider):
    """Another audience than the service's own is a 401."""
    done = verify(token, provider.url, audience="https://other.example")
    assert done.returncode == 1
    assert done.stderr.startswith("401: ")


@pytest.mark.parametrize("kind", ["signature", "claims", "none", "typ", "expired", "garbage", "empty"])
def test_forgeries_are_refused(kind, verify, token, provider):
    """What the provider did not sign as an access token is a 401, without a stack trace."""
    key = generate_private_key(SECP256R1())
    forgeries = {
        "signature": token[:-8] + "AAAAAAAA",
        "claims": forged(token, key, scope="agents:read agents:write"),
        "none": with_header(token, alg="none").rpartition(".")[0] + ".",
        "typ": with_header(token, typ="JWT"),
        "expired": forged(token, key, exp=int(time.time()) - 60),
        "garbage": "not.a.token",
        "empty": "",
    }

    done = verify(forgeries[kind], provider.url)

    assert done.returncode == 1
    assert done.stderr.startswith("401: ")
    assert done.stderr.count("\n") == 1


def test_githubs_own_token_is_no_access_token(verify, github, provider):
    """An ID token of GitHub, sent by mistake or on purpose, is refused."""
    id_token = github.control("POST", "token", claims={"aud": provider.url}).json()["token"]
    assert verify(id_token, provider.url).stderr.startswith("401: ")


def test_introspection_knows_what_was_revoked(token, trusted_agent, provider, environment, transcript):
    """A revoked token is not active, though its signature is as good as before."""
    environ = environment | {"SERVICE_TOKEN": token_of(provider.admin.headers)}

    def introspect():
        command = (sys.executable, EXAMPLES / "introspect.py", provider.url)
        return transcript.run(*command, input=token, env=environ)

    before = introspect()
    provider.admin.post("/token/revoke", data={"token": token}).raise_for_status()
    after = introspect()

    assert (before.returncode, before.stdout) == (0, f"200: agent {trusted_agent}\n")
    assert (after.returncode, after.stderr) == (1, "401: the token is not active\n")


def test_the_document_shows_the_files_that_were_run():
    """Each block of code in the document is its file, and each file is in the document."""
    text = (ROOT / "docs" / "verify-tokens.md").read_text()
    shown = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", text, re.DOTALL))
    assert shown == {
        f"examples/verify/{path.name}": path.read_text() for path in EXAMPLES.iterdir() if path.is_file()
    }
    assert len(shown) == 3
