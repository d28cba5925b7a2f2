"""The proxy and the root certificates for requests to issuers, from environment variables.

httpx would read the same variables when a client is created, in the workers, and raise for values that other programs
accept, such as `fd00::/8` in NO_PROXY (https://github.com/encode/httpx/issues/3221). Therefore they are read here, once,
before the server listens; an unusable entry of NO_PROXY is ignored, as curl does.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx

from sentryagent_idp.errors import ConfigurationError
from sentryagent_idp.runtime.addresses import is_loopback

_PROXY_ADVICE = "write the URL of an HTTP proxy, such as http://proxy.example.com:3128"
_SCHEMES = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Network:
    """The proxy, if any, the hosts that bypass it, and the root certificates trusted for TLS."""

    roots: ssl.SSLContext = field(repr=False)
    proxy: httpx.Proxy | None = field(default=None, repr=False)
    direct: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read HTTPS_PROXY or ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR; lower-case proxy variables win.

        Raises `ConfigurationError`, which names the variable and never shows a password.
        """
        roots = _roots(environ)
        _proxy(
            environ, "http_proxy", roots
        )  # only validated: plain http is for loopback, which bypasses the proxy
        proxy = _proxy(environ, "https_proxy", roots) or _proxy(environ, "all_proxy", roots)
        return cls(roots, proxy, tuple(_value(environ, "no_proxy").replace(",", " ").lower().split()))

    def client(self, issuer: str) -> httpx.Client:
        """Return a client for requests to one issuer; they all have one origin."""
        return httpx.Client(
            trust_env=False, verify=self.roots, proxy=self.proxy if self.covers(issuer) else None
        )

    def covers(self, issuer: str) -> bool:
        """Return whether requests to an issuer go through the proxy; requests to this machine never do."""
        address = httpx.URL(issuer)
        if self.proxy is None or is_loopback(address.host):
            return False
        return not any(_excepts(entry, address.host, address.port or 443) for entry in self.direct)


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "") or environ.get(name.upper(), "")


def _proxy(environ: Mapping[str, str], name: str, roots: ssl.SSLContext) -> httpx.Proxy | None:
    value = _value(environ, name)
    if not value:
        return None
    variable = name if environ.get(name) else name.upper()
    url = value if "://" in value else f"http://{value}"
    if url.lower().startswith("socks"):
        raise ConfigurationError(f"{variable}: SOCKS is not supported; {_PROXY_ADVICE}")
    if not _is_proxy(url):
        raise ConfigurationError(
            f"{variable}: {_PROXY_ADVICE}, with special characters in its user and password percent-encoded"
        )
    return httpx.Proxy(url, ssl_context=roots if httpx.URL(url).scheme == "https" else None)


def _is_proxy(text: str) -> bool:
    """Return whether the text is only an address: text after `#`, `?` or `/` is part of an unencoded password."""
    try:
        url = httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        return False
    is_visible = text.isascii() and text.isprintable() and " " not in text
    is_address = url.scheme in _SCHEMES and url.host and (url.port is None or 1 <= url.port <= 65535)
    return bool(is_visible and is_address and url.raw_path == b"/" and not url.fragment)


def _excepts(entry: str, host: str, port: int) -> bool:
    """Return whether a NO_PROXY entry (`*`, a name, an address or a range, optionally with a port) covers a host.

    A name also covers its subdomains.
    """
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
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


def _roots(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return a context with the certificates of SSL_CERT_FILE and SSL_CERT_DIR, or certifi's if neither is set."""
    _check_key_log(environ.get("SSLKEYLOGFILE", ""))
    file, folders = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if folders and not any(Path(folder).is_dir() for folder in folders.split(":")):
        raise ConfigurationError(f"SSL_CERT_DIR: {folders} is not a folder; name one with root certificates")
    if not file and not folders:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=file or None, capath=folders or None)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"SSL_CERT_FILE: no root certificate can be read from {file} ({_cause(error)}); name a file in PEM form"
        ) from error


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if reason else getattr(error, "strerror", None) or str(error)


def _check_key_log(path: str) -> None:
    """Check that the file can be written: otherwise Python's `ssl` would raise its own error."""
    try:
        if path:
            Path(path).open("a").close()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"SSLKEYLOGFILE: {path} cannot be written; name another file, or unset it"
        ) from error
