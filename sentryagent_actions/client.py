"""The HTTP client: its way to each host, its trust, and how it names itself."""

from collections.abc import Mapping

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


def open_client(
    *,
    transport: httpx.BaseTransport | None,
    ca_certificate: str,
    environ: Mapping[str, str] | None = None,
    run: str = "",
) -> httpx.Client:
    """Return a client with the system's roots and `ca_certificate` (PEM), and the proxy that `environ` names.

    `run` goes into the User-Agent. Raises UnusableProxyError, or OSError where OpenSSL cannot use a file.
    """
    return httpx.Client(
        transport=transport or _route(Proxies.from_environ(environ or {}), ca_certificate),
        trust_env=False,
        follow_redirects=False,
        headers={
            "User-Agent": f"sentryagent-actions (+https://github.com/sentryagent/toolkit{run})",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        },
    )


def _route(proxies: Proxies, ca_certificate: str) -> httpx.BaseTransport:
    context = trust(ca_certificate)
    direct = httpx.HTTPTransport(verify=context)
    if proxies.proxy is None:
        return direct
    return Route(direct, httpx.HTTPTransport(verify=context, proxy=proxies.proxy), proxies)
