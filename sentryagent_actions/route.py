"""An HTTP transport that connects to each host directly or through the environment's proxy."""

import httpx

from sentryagent_actions.proxies import Proxies
from sentryagent_actions.tls import find_failure, trust


class ProxyConnectError(httpx.ConnectError):
    """The proxy cannot be reached; `variable` names the environment variable that configures it."""

    variable = ""


class Route(httpx.BaseTransport):
    """A transport that sends each request directly or through the proxy."""

    def __init__(self, direct: httpx.BaseTransport, through: httpx.BaseTransport, proxies: Proxies) -> None:
        self.direct, self.through, self.proxies = direct, through, proxies

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request directly or through the proxy. Raises httpx.TransportError."""
        if not self.proxies.cover(request.url):
            return self.direct.handle_request(request)
        try:
            return self.through.handle_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            # We connect to the proxy only, so the proxy cannot be reached. A TLS failure is the host's: TLS ends there.
            if find_failure(error):
                raise
            failure = ProxyConnectError(str(error) or "the connection timed out")
            failure.variable = self.proxies.variable
            raise failure from error

    def close(self) -> None:
        """Close the direct and the proxied connections."""
        self.direct.close()
        self.through.close()


def open_route(proxies: Proxies, ca_certificate: str) -> httpx.BaseTransport:
    """Return the transport for direct and proxied requests. Raises OSError if OpenSSL cannot use a file."""
    context = trust(ca_certificate)
    direct = httpx.HTTPTransport(verify=context)
    if proxies.proxy is None:
        return direct
    return Route(direct, httpx.HTTPTransport(verify=context, proxy=proxies.proxy), proxies)
