"""Origins to which a credential may be sent."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_VISIBLE_ASCII = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of a URL (RFC 6454, section 4): https, or http on this machine."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the origin of any URL to which a credential may be sent.

        Raises ValueError whose message says what to write instead.
        """
        parts = _split(url)
        # A trailing dot only marks the name as fully qualified.
        host = (parts.hostname or "").lower().removesuffix(".")
        if not (_HOST.fullmatch(host) or _is_ip_address(host)):
            raise ValueError(
                "has no valid host name (ASCII letters, digits, dots and hyphens); write it as https://idp.example.com"
            )
        if parts.scheme == "http" and not is_loopback(host):
            raise ValueError(
                "must start with https:// (http:// only for localhost, 127.0.0.1 and [::1]); "
                "write it as https://idp.example.com"
            )
        return cls(parts.scheme, host, _port(parts))

    @classmethod
    def from_base_url(cls, url: str) -> Self:
        """Return the origin of a URL without a path, query or fragment; one trailing slash is allowed.

        Raises ValueError whose message says what to write instead.
        """
        origin = cls.of(url)
        parts = _split(url)
        if parts.path not in {"", "/"}:
            raise ValueError(f"has a path; write only the origin: {origin}")
        if "?" in url or "#" in url:
            raise ValueError(f"has a query or a fragment; write only the origin: {origin}")
        return origin

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine or container."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def _split(url: str) -> SplitResult:
    if not url:
        raise ValueError("is empty; write it as https://idp.example.com")
    # urlsplit drops tabs and newlines, and browsers read a backslash as a slash, so two programs could see two hosts.
    if not _VISIBLE_ASCII.fullmatch(url) or "\\" in url:
        raise ValueError(
            "contains a space, a backslash or a non-ASCII character; write it as https://idp.example.com"
        )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError("is not a URL; write it as https://idp.example.com") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        raise ValueError("does not start with https://; write it in full, as https://idp.example.com")
    if "@" in parts.netloc:
        raise ValueError(
            "contains a user name or password; write it without them, as https://idp.example.com"
        )
    return parts


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(
            "has a port that is not a number from 1 to 65535; write it as https://idp.example.com:8443"
        ) from error
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError(
            "has a port that is not a number from 1 to 65535; write it as https://idp.example.com:8443"
        )
    return port or _DEFAULT_PORTS[parts.scheme]


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def is_loopback(host: str) -> bool:
    """Return whether a host (without brackets) is this machine or container: `localhost`, 127.0.0.0/8 or ::1."""
    return host == "localhost" or (_is_ip_address(host) and ipaddress.ip_address(host).is_loopback)
