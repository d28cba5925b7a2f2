"""HTTPS_PROXY, ALL_PROXY and NO_PROXY, including values that httpx does not accept."""

import httpx
import pytest

from kit.proxies import CHOSEN, EXCEPTED, IGNORED, PROXY, THIS_MACHINE, UNUSABLE
from sentryagent_actions.network import open_client
from sentryagent_actions.proxies import Proxies, UnusableProxyError
from sentryagent_actions.route import ProxyConnectError, Route


@pytest.mark.parametrize(("environ", "url"), CHOSEN)
def test_which_variable_names_the_proxy(environ, url):
    """HTTPS_PROXY takes precedence over ALL_PROXY, lower case over upper case; the default scheme is http."""
    proxies = Proxies.from_environ(environ)
    assert (proxies.proxy and str(proxies.proxy.url)) == url
    assert proxies.cover(httpx.URL("https://idp.example.com")) is (url is not None)


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": PROXY}, "HTTPS_PROXY"),
        ({"https_proxy": PROXY}, "https_proxy"),
        ({"HTTPS_PROXY": PROXY, "https_proxy": PROXY}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://other.example", "https_proxy": PROXY}, "https_proxy"),
        ({"ALL_PROXY": PROXY}, "ALL_PROXY"),
    ],
)
def test_the_variable_that_counts_is_known(environ, variable):
    """The variable that set the proxy is known, so that errors can name it."""
    assert Proxies.from_environ(environ).variable == variable


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", UNUSABLE)
def test_value_that_is_no_proxy_is_refused_by_name(variable, value):
    """The error shows only the variable's name, because its value may hold a password."""
    with pytest.raises(UnusableProxyError) as refusal:
        Proxies.from_environ({variable: value})
    assert str(refusal.value) == variable


@pytest.mark.parametrize(("no_proxy", "host", "direct"), EXCEPTED)
def test_no_proxy(no_proxy, host, direct):
    """NO_PROXY matches names with their subdomains, addresses and networks, with or without a port."""
    proxies = Proxies.from_environ({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})
    assert proxies.cover(httpx.URL(f"https://{host}")) is not direct


@pytest.mark.parametrize("entry", IGNORED)
def test_entry_that_says_nothing_is_passed_over(entry):
    """Entries of NO_PROXY that other programs use are ignored."""
    proxies = Proxies.from_environ({"HTTPS_PROXY": PROXY, "NO_PROXY": f"{entry},other.example"})
    assert proxies.cover(httpx.URL("https://idp.example.com"))
    assert not proxies.cover(httpx.URL("https://other.example"))


@pytest.mark.parametrize("url", THIS_MACHINE)
def test_this_machine_is_reached_without_a_proxy(url):
    """Loopback bypasses the proxy: over plain http it would carry the credential off this machine."""
    proxies = Proxies.from_environ({"HTTPS_PROXY": PROXY, "ALL_PROXY": PROXY})
    assert not proxies.cover(httpx.URL(url))


def test_without_a_proxy_no_variable_is_looked_at():
    """Without a proxy NO_PROXY is not parsed."""
    with open_client(transport=None, ca_certificate="", environ={"NO_PROXY": "[::1],fd00::/8"}) as client:
        assert isinstance(client._transport, httpx.HTTPTransport)


class Broken(httpx.BaseTransport):
    def __init__(self, error):
        self.error = error

    def handle_request(self, request):
        raise self.error


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ConnectTimeout("")])
def test_connection_to_the_proxy_is_told_from_one_to_the_host(error):
    """If a proxy is used, a connection error is about the proxy, not about the host."""
    proxies = Proxies.from_environ({"HTTPS_PROXY": PROXY, "NO_PROXY": "direct.example"})
    route = Route(Broken(httpx.ConnectError("of the host")), Broken(error), proxies)
    with pytest.raises(ProxyConnectError) as failure:
        route.handle_request(httpx.Request("GET", "https://idp.example.com"))
    assert failure.value.variable == "HTTPS_PROXY"
    with pytest.raises(httpx.ConnectError, match="of the host") as direct:
        route.handle_request(httpx.Request("GET", "https://direct.example"))
    assert not isinstance(direct.value, ProxyConnectError)
