"""The proxy and certificate variables, including values that httpx does not accept."""

import pytest
import trustme

from kit.proxies import CHOSEN, EXCEPTED, IGNORED, PROXY, THIS_MACHINE, UNUSABLE
from sentryagent_idp.errors import ConfigurationError
from sentryagent_idp.github.network import Network

GITHUB = "https://token.actions.githubusercontent.com"


@pytest.mark.parametrize(("environ", "proxy"), CHOSEN)
def test_which_variable_names_the_proxy(environ, proxy):
    """HTTPS_PROXY takes precedence over ALL_PROXY, lower case over upper case; the default scheme is http."""
    network = Network.from_environ(environ)
    assert (network.proxy and str(network.proxy.url)) == proxy
    assert network.covers(GITHUB) is (proxy is not None)
    network.client(GITHUB).close()


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", UNUSABLE)
def test_value_that_is_no_proxy(variable, value):
    """The error is one line that names the variable and never shows a password."""
    with pytest.raises(ConfigurationError) as refusal:
        Network.from_environ({variable: value})
    assert str(refusal.value).startswith(f"{variable}: ")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(("entry", "host", "direct"), EXCEPTED)
def test_no_proxy(entry, host, direct):
    """NO_PROXY matches names with their subdomains, addresses and networks, with or without a port."""
    network = Network.from_environ({"HTTPS_PROXY": PROXY, "NO_PROXY": entry})
    assert network.covers(f"https://{host}/_services/token") is not direct


@pytest.mark.parametrize("entry", IGNORED)
@pytest.mark.parametrize("more", [{}, {"HTTPS_PROXY": PROXY}])
def test_entry_that_says_nothing_is_ignored(entry, more):
    """Entries of NO_PROXY that other programs use are ignored."""
    network = Network.from_environ({"NO_PROXY": f"{entry},other.example", **more})
    network.client(GITHUB).close()
    assert network.covers(GITHUB) is bool(more)
    assert not network.covers("https://other.example")


@pytest.mark.parametrize("issuer", THIS_MACHINE)
def test_this_machine_is_reached_without_a_proxy(issuer):
    """Loopback bypasses the proxy, which could not reach it."""
    assert not Network.from_environ({"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY}).covers(issuer)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSL_CERT_FILE", "{}/nonexistent"),
        ("SSL_CERT_FILE", "{}"),
        ("SSL_CERT_FILE", "{}/no.pem"),
        ("SSL_CERT_DIR", "{}/nonexistent"),
        ("SSL_CERT_DIR", "{}/no.pem"),
        ("SSLKEYLOGFILE", "{}/nonexistent/log"),
    ],
)
def test_certificates_that_cannot_be_read(tmp_path, variable, value):
    """The error is one line that names the variable."""
    (tmp_path / "no.pem").write_text("this is no certificate")
    with pytest.raises(ConfigurationError) as refusal:
        Network.from_environ({variable: value.format(tmp_path)})
    assert str(refusal.value).startswith(f"{variable}: ")


def test_root_certificates(tmp_path):
    """A file replaces the root certificates; in a list of folders some may be missing."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    by_file = Network.from_environ({"SSL_CERT_FILE": str(tmp_path / "ca.pem")}).roots
    by_folder = Network.from_environ({"SSL_CERT_DIR": f"/nonexistent:{tmp_path}"}).roots

    assert by_file.cert_store_stats()["x509_ca"] == 1
    assert by_folder.cert_store_stats()["x509_ca"] == 0  # a folder's certificates are loaded on demand
    assert (
        Network.from_environ({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}).roots.cert_store_stats()["x509_ca"]
        > 50
    )
