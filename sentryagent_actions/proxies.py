"""The environment's proxy: the variable that configures it, and the hosts that bypass it.

httpx reads these variables too, but raises for values that other programs accept, such as `fd00::/8` or `[::1]` in
NO_PROXY (encode/httpx#3221). An entry of NO_PROXY that cannot be parsed is ignored, as in curl and the runner.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import httpx

from sentryagent_actions.origin import is_loopback

_VARIABLES = ("https_proxy", "all_proxy")
_SCHEMES = frozenset({"http", "https"})
_VISIBLE = re.compile(r"[!-~]+")
_WITH_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


class UnusableProxyError(ValueError):
    """The value of `variable` is not a usable proxy URL; it is not shown because it may contain a password."""

    def __init__(self, variable: str) -> None:
        super().__init__(variable)
        self.variable = variable


@dataclass(frozen=True)
class Proxies:
    """The environment's proxy, if any, and the hosts that bypass it (`direct`)."""

    variable: str = ""
    proxy: httpx.Proxy | None = field(default=None, repr=False)
    direct: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read HTTPS_PROXY, ALL_PROXY and NO_PROXY; lower case wins. Raises UnusableProxyError."""
        direct = _value(environ, "no_proxy").replace(",", " ").lower().split()
        for name in _VARIABLES:
            value = _value(environ, name)
            if value:
                variable = name.upper() if environ.get(name.upper()) == value else name
                return cls(variable, _proxy(variable, value), tuple(direct))
        return cls()

    def cover(self, url: httpx.URL) -> bool:
        """Return whether a request to `url` goes through the proxy.

        Plain http is allowed only to this machine; a proxy would send the credential off it unencrypted.
        """
        host = url.host.lower()
        if self.proxy is None or url.scheme != "https" or is_loopback(host):
            return False
        return not any(_excepts(entry, host, url.port or 443) for entry in self.direct)


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "") or environ.get(name.upper(), "")


def _proxy(variable: str, value: str) -> httpx.Proxy:
    if not _VISIBLE.fullmatch(value):
        raise UnusableProxyError(variable)
    try:
        proxy = httpx.Proxy(value if _WITH_SCHEME.match(value) else f"http://{value}")
    except (ValueError, httpx.InvalidURL) as error:
        raise UnusableProxyError(variable) from error
    if not _is_address(proxy.url):
        raise UnusableProxyError(variable)
    return proxy


def _is_address(url: httpx.URL) -> bool:
    """Return whether the URL is only an address; text after `#`, `?` or `/` is probably part of a password."""
    has_port = url.port is None or 1 <= url.port <= 65535
    has_more = url.raw_path != b"/" or url.fragment
    return bool(url.scheme in _SCHEMES and url.host and has_port and not has_more)


def _excepts(entry: str, host: str, port: int) -> bool:
    """Return whether a NO_PROXY entry matches: `*`, a domain and its subdomains, an address or range; port optional."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass  # the host or the entry is a name, or the entry has a port
    try:
        parts = urlsplit(f"//{entry.removeprefix('*').removeprefix('.')}")
        name, only_port = parts.hostname, parts.port
    except ValueError:
        return False
    if not name or parts.path or only_port not in {None, port}:
        return False
    return host == name or host.endswith(f".{name}")
