"""HTTPS_PROXY, ALL_PROXY and NO_PROXY: what they mean, and values that others take and httpx does not."""

import httpx
import pytest

from sentryagent_actions.network import open_client
from sentryagent_actions.proxies import Proxies, UnusableProxyError
from sentryagent_actions.route import ProxyConnectError, Route

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environ", "variable", "url"),
    [
        ({}, "", None),
        ({"HTTPS_PROXY": ""}, "", None),
        ({"HTTP_PROXY": PROXY}, "", None),
        ({"HTTPS_PROXY": PROXY}, "HTTPS_PROXY", PROXY),
        ({"https_proxy": PROXY}, "https_proxy", PROXY),
        ({"HTTPS_PROXY": PROXY, "https_proxy": PROXY}, "HTTPS_PROXY", PROXY),
        ({"HTTPS_PROXY": "http://other.example", "https_proxy": PROXY}, "https_proxy", PROXY),
        ({"ALL_PROXY": PROXY}, "ALL_PROXY", PROXY),
        ({"ALL_PROXY": "http://other.example", "HTTPS_PROXY": PROXY}, "HTTPS_PROXY", PROXY),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "HTTPS_PROXY", PROXY),
        ({"HTTPS_PROXY": "http://user:p%23x@proxy.example:3128"}, "HTTPS_PROXY", PROXY),
    ],
)
def test_which_variable_names_the_proxy(environ, variable, url):
    """Lower case wins, HTTPS_PROXY before ALL_PROXY; a missing scheme is http."""
    proxies = Proxies.from_environ(environ)
    assert proxies.variable == variable
    assert (proxies.proxy and str(proxies.proxy.url)) == url


@pytest.mark.parametrize(
    "value",
    ["socks5://127.0.0.1:1080", "ftp://proxy.example", "http://u:p#x@proxy.example:3128", "http://", "a b"],
)
def test_value_that_is_no_proxy_is_refused_by_name(value):
    """The value itself may hold a password."""
    with pytest.raises(UnusableProxyError) as refusal:
        Proxies.from_environ({"ALL_PROXY": value})
    assert str(refusal.value) == "ALL_PROXY"


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "idp.example.com", False),
        ("*", "idp.example.com", True),
        ("idp.example.com", "idp.example.com", True),
        ("IDP.Example.com", "idp.example.com", True),
        ("example.com", "idp.example.com", True),
        (".example.com", "idp.example.com", True),
        ("*.example.com", "idp.example.com", True),
        ("ample.com", "idp.example.com", False),
        ("other.example, idp.example.com", "idp.example.com", True),
        ("other.example idp.example.com", "idp.example.com", True),
        ("idp.example.com:443", "idp.example.com", True),
        ("idp.example.com:8443", "idp.example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("fd00::/8", "[fd00::1]", True),
        ("fd00::/8", "[fe00::1]", False),
        ("[fd00::1]", "[fd00::1]", True),
        ("[fd00::1]:443", "[fd00::1]", True),
        ("fd00::1", "[fd00::1]", True),
    ],
)
def test_no_proxy(no_proxy, host, direct):
    """Names with those below them, addresses and ranges, with or without a port."""
    proxies = Proxies.from_environ({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})
    assert proxies.cover(httpx.URL(f"https://{host}")) is not direct


@pytest.mark.parametrize(
    "entry", ["::1/128", "[::1]", ".corp:8080,foo:*", "http://x:bad", "[", "192.168.*.*", "1.2.3.4/99", "é"]
)
def test_entry_that_says_nothing_is_passed_over(entry):
    """OrbStack, Docker and others write such entries (encode/httpx#3221); they are no reason to fail."""
    proxies = Proxies.from_environ({"HTTPS_PROXY": PROXY, "NO_PROXY": f"{entry},other.example"})
    assert proxies.cover(httpx.URL("https://idp.example.com"))
    assert not proxies.cover(httpx.URL("https://other.example"))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:3000", "http://127.0.0.9", "https://localhost:3000", "https://[::1]"]
)
def test_this_machine_is_reached_without_a_proxy(url):
    """Plain http is for this machine only: a proxy from the environment must not carry the credential off it."""
    proxies = Proxies.from_environ({"HTTPS_PROXY": PROXY, "ALL_PROXY": PROXY})
    assert not proxies.cover(httpx.URL(url))


def test_without_a_proxy_no_variable_is_looked_at():
    """NO_PROXY alone changes nothing, whatever it is."""
    with open_client(transport=None, ca_certificate="", environ={"NO_PROXY": "[::1],fd00::/8"}) as client:
        assert isinstance(client._transport, httpx.HTTPTransport)


class Broken(httpx.BaseTransport):
    def __init__(self, error):
        self.error = error

    def handle_request(self, request):
        raise self.error


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ConnectTimeout("")])
def test_connection_to_the_proxy_is_told_from_one_to_the_host(error):
    """Where a proxy is used, what cannot be connected to is the proxy."""
    proxies = Proxies.from_environ({"HTTPS_PROXY": PROXY, "NO_PROXY": "direct.example"})
    route = Route(Broken(httpx.ConnectError("of the host")), Broken(error), proxies)
    with pytest.raises(ProxyConnectError) as failure:
        route.handle_request(httpx.Request("GET", "https://idp.example.com"))
    assert failure.value.variable == "HTTPS_PROXY"
    with pytest.raises(httpx.ConnectError, match="of the host") as direct:
        route.handle_request(httpx.Request("GET", "https://direct.example"))
    assert not isinstance(direct.value, ProxyConnectError)
