"""The way to each host: directly, or through the proxy of the environment."""

import httpx

from sentryagent_actions.proxies import Proxies
from sentryagent_actions.tls import find_failure, trust


class ProxyConnectError(httpx.ConnectError):
    """There is no connection to the proxy that a variable names."""

    variable = ""


class Route(httpx.BaseTransport):
    """The way to each host: directly, or through the proxy."""

    def __init__(self, direct: httpx.BaseTransport, through: httpx.BaseTransport, proxies: Proxies) -> None:
        self.direct, self.through, self.proxies = direct, through, proxies

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request its way. Raises httpx.TransportError."""
        if not self.proxies.cover(request.url):
            return self.direct.handle_request(request)
        try:
            return self.through.handle_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            # The proxy connects to the host: what we connect to is the proxy. TLS goes through it, to the host.
            if find_failure(error):
                raise
            failure = ProxyConnectError(str(error) or "the connection timed out")
            failure.variable = self.proxies.variable
            raise failure from error

    def close(self) -> None:
        """Close the connections of both ways."""
        self.direct.close()
        self.through.close()


def open_route(proxies: Proxies, ca_certificate: str) -> httpx.BaseTransport:
    """Return the way to each host. Raises OSError where OpenSSL cannot use a file."""
    context = trust(ca_certificate)
    direct = httpx.HTTPTransport(verify=context)
    if proxies.proxy is None:
        return direct
    return Route(direct, httpx.HTTPTransport(verify=context, proxy=proxies.proxy), proxies)
