"""The mock with TLS and a new CA."""

import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from cryptography import x509

from kit.processes import PATIENCE_SECONDS
from mock_idp.client import MockClient, MockUnavailableError
from mock_idp.http.tls import CA_FILE_NAME, make_certificate, recipe
from mock_idp.server import MockIdp

MOCK_IDP = [sys.executable, "-c", "from mock_idp.cli.main import main; main()"]
GITHUB = "https://token.actions.githubusercontent.com"


@pytest.fixture
def trusted(certificate):
    """A client's context that trusts only the temporary CA."""
    return ssl.create_default_context(cafile=certificate.ca_file)


def test_a_client_that_trusts_the_authority_reaches_the_mock(ring, certificate, trusted):
    """Discovery, key set and token requests work over https."""
    with (
        MockIdp(ring=ring, tls=certificate.context) as idp,
        httpx.Client(verify=trusted, trust_env=False) as client,
    ):
        job = idp.job()
        bearer = {"Authorization": f"bearer {job['requestToken']}"}
        token = client.get(job["requestUrl"], headers=bearer).json()["value"]
        document = client.get(f"{idp.issuer}/.well-known/openid-configuration").json()

        assert idp.url.startswith("https://")
        assert (
            client.get(document["jwks_uri"]).json()["keys"][0]["kid"]
            == jwt.get_unverified_header(token)["kid"]
        )


def test_a_stranger_trusts_nothing_of_it(ring, certificate):
    """A client without the CA's file does not trust the mock."""
    with (
        MockIdp(ring=ring, tls=certificate.context) as idp,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE"),
    ):
        httpx.get(idp.url, trust_env=False)


def test_the_command_line_tells_that_it_does_not_trust_the_mock(ring, certificate):
    """If the mock's certificate is not trusted, the error names SSL_CERT_FILE as the remedy."""
    with (
        MockIdp(ring=ring, tls=certificate.context) as idp,
        pytest.raises(
            MockUnavailableError, match=r"certificate of https://\S+ is not trusted .*; set SSL_CERT_FILE"
        ),
    ):
        MockClient(idp.url).reset()


def test_githubs_own_issuer_can_be_played(ring, certificate, trusted):
    """With GitHub's issuer, the mock serves a client that reaches it through the hosts file, with a valid certificate."""
    with MockIdp(issuer=GITHUB, ring=ring, tls=certificate.context) as idp:
        url = f"{idp.url}/.well-known/openid-configuration"
        host = {
            "headers": {"Host": "token.actions.githubusercontent.com"},
            "extensions": {"sni_hostname": "token.actions.githubusercontent.com"},
        }
        with httpx.Client(verify=trusted, trust_env=False) as client:
            document = client.get(url, **host).json()
        claims = jwt.decode(idp.mint(), options={"verify_signature": False})

    assert (document["issuer"], claims["iss"]) == (GITHUB, GITHUB)


def test_no_private_key_stays(tmp_path):
    """The folder has only the CA's certificate, without its private key, which allows no subordinate CA."""
    certificate = make_certificate(["mock"], tmp_path / "new")

    assert [file.name for file in (tmp_path / "new").iterdir()] == [CA_FILE_NAME]
    text = certificate.ca_file.read_bytes()
    assert b"PRIVATE" not in text
    authority = x509.load_pem_x509_certificate(text)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert certificate.names == ("localhost", "127.0.0.1", "::1", "mock")


def test_the_certificate_is_good_for_a_week(ring, certificate, trusted):
    """The certificate is for this machine and the requested name, and expires after a week."""
    with (
        MockIdp(ring=ring, tls=certificate.context) as idp,
        socket.create_connection(
            ("127.0.0.1", urlsplit(idp.url).port), timeout=PATIENCE_SECONDS
        ) as connection,
        trusted.wrap_socket(connection, server_hostname="localhost") as secure,
    ):
        shown = secure.getpeercert()

    days_left = (ssl.cert_time_to_seconds(shown["notAfter"]) - time.time()) / 86_400
    assert 6 < days_left <= 7
    assert shown["subjectAltName"] == (
        ("DNS", "localhost"),
        ("IP Address", "127.0.0.1"),
        ("IP Address", "0:0:0:0:0:0:0:1"),
        ("DNS", "token.actions.githubusercontent.com"),
    )


@pytest.mark.parametrize(
    ("host", "port", "there", "not_there"),
    [
        ("127.0.0.1", 3001, ["SSL_CERT_FILE=", "NODE_EXTRA_CA_CERTS="], ["hosts"]),
        (
            "token.actions.githubusercontent.com",
            443,
            ["/etc/hosts", "127.0.0.1 token.actions"],
            ["on port 443"],
        ),
        (
            "token.actions.githubusercontent.com",
            3001,
            ["on port 443, but this mock listens on 3001"],
            [],
        ),
    ],
)
def test_the_recipe_says_what_a_client_needs(certificate, host, port, there, not_there):
    """The recipe explains how to trust the CA and, only for a foreign name, the hosts file and the port."""
    text = recipe(certificate, host, port)

    assert all(part in text for part in there)
    assert not any(part in text for part in not_there)


def test_serve_with_tls_prints_the_recipe_and_works(tmp_path):
    """`serve --tls` prints its usual line on stdout and the recipe on stderr, and its CA file works."""
    words = ["serve", "--port", "0", "--tls", "--tls-folder", str(tmp_path), "--tls-name", "mock-idp"]
    with subprocess.Popen(
        [*MOCK_IDP, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        url = re.search(r"listening on (https://127\.0\.0\.1:\d+)", process.stdout.readline())[1]
        trusted = ssl.create_default_context(cafile=tmp_path / CA_FILE_NAME)
        with httpx.Client(verify=trusted, trust_env=False) as client:
            status = client.get(f"{url}/_mock/health").status_code
            named = client.get(
                f"{url}/_mock/health", extensions={"sni_hostname": "mock-idp"}, headers={"Host": "mock-idp"}
            )
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)

    assert (status, named.status_code, process.returncode) == (200, 200, 0)
    assert f"SSL_CERT_FILE={tmp_path / CA_FILE_NAME}" in err


@pytest.mark.parametrize("words", [["--tls-name", "no host name"], ["--tls-folder", "/proc/nowhere"]])
def test_a_certificate_that_cannot_be_made_is_one_line(command, words):
    """If the certificate cannot be created, the command exits with 2 and one line."""
    code, out, err = command("serve", "--port", "0", "--tls", *words)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("mock-idp: --tls: no certificate for ")
