"""Fetches an issuer's discovery document and key set over HTTP, within one deadline for the whole fetch."""

import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sentryagent_idp.github import jwks

CONNECT_SECONDS = 3.0
_MAX_QUOTED = 100


class FetchFailed(Exception):
    """The issuer's keys could not be fetched; the message says why, and quotes at most 100 characters of a peer's text."""


class Fetch:
    """One fetch of an issuer's keys: call `run` in a thread of its own, and `cut` from another thread to end it.

    httpx limits each read only, and nothing limits a name look-up, so an issuer that sends one byte every few seconds
    could keep `run` busy for days. `deadline` is a time of `monotonic`, in seconds.
    """

    def __init__(
        self, issuer: str, client: httpx.Client, *, deadline: float, monotonic: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._deadline = deadline
        self._monotonic = monotonic
        self._lock = Lock()
        self._place = httpx.URL(issuer).netloc.decode()
        self._sockets: list[socket.socket] = []
        self._is_connecting = False
        self._is_cut = False

    def run(self) -> Mapping[str, RSAPublicKey]:
        """Return the published keys by their ids; raises `FetchFailed`."""
        try:
            discovery = self._get(httpx.URL(f"{self._issuer}/.well-known/openid-configuration"))
            address = httpx.URL(jwks.jwks_uri(discovery, self._issuer))
            # The issuer's document must not send us to another host (SSRF, B2, B18).
            if _origin(address) != _origin(httpx.URL(self._issuer)) or address.userinfo:
                raise FetchFailed("its jwks_uri is on another host")
            return jwks.read(self._get(address))
        except jwks.UnusableDocument as error:
            raise FetchFailed(str(error)) from error
        except httpx.TimeoutException as error:
            raise FetchFailed(self._lateness()) from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError) as error:
            raise FetchFailed(_explained(error, self._place)) from error
        finally:
            with self._lock:
                self._close()

    def cut(self) -> str:
        """Shut down the connections, including later ones; returns a message that says what the fetch was waiting for."""
        with self._lock:
            self._is_cut = True
            self._close()
        return self._lateness()

    def _lateness(self) -> str:
        if self._is_connecting:
            return f"the connection to {self._place} timed out; check its DNS lookup, the network and HTTPS_PROXY"
        return f"the response from {self._place} timed out"

    def _get(self, address: httpx.URL) -> bytes:
        left = self._deadline - self._monotonic()
        if left <= 0:
            raise FetchFailed(self._lateness())
        with self._client.stream(
            "GET",
            address,
            # Uncompressed, so that the size limit counts the bytes that arrive. A new connection for each document, so
            # that `cut` can shut it down.
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"},
            timeout=httpx.Timeout(left, connect=min(left, CONNECT_SECONDS)),
            follow_redirects=False,
            extensions={"trace": self._trace},
        ) as response:
            if response.status_code != httpx.codes.OK:
                raise FetchFailed(f"it responds with status {response.status_code}")
            if "Content-Encoding" in response.headers:
                raise FetchFailed("its response is compressed although no compression was requested")
            return self._read(response)

    def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > jwks.MAX_DOCUMENT_BYTES:
                raise FetchFailed(f"its response has more than {jwks.MAX_DOCUMENT_BYTES} bytes")
            if self._monotonic() > self._deadline:
                raise FetchFailed(self._lateness())
        return bytes(body)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Record the peer of a connection, the issuer or a proxy, and keep a handle on its socket."""
        if event.endswith("connect_tcp.started"):
            self._place, self._is_connecting = f"{info['host']}:{info['port']}", True
        if event.endswith("connect_tcp.complete"):
            self._is_connecting = False
            with self._lock:
                # A duplicate: TLS takes over the original descriptor before its handshake, which can be slow, too.
                self._sockets.append(info["return_value"].get_extra_info("socket").dup())
                if self._is_cut:
                    self._close()

    def _close(self) -> None:
        """Shut down the connected sockets, which ends a read in another thread; the caller holds the lock."""
        for connected in self._sockets:
            with suppress(OSError):  # the peer closed it first
                connected.shutdown(socket.SHUT_RDWR)
            connected.close()
        self._sockets.clear()


def _origin(address: httpx.URL) -> tuple[str, str, int | None]:
    return address.scheme, address.host, address.port


def _explained(error: Exception, place: str) -> str:
    """Return the failure in words for the operator; `place` is the peer of the connection, the issuer or a proxy."""
    cause = _cause(error)
    match error, cause:
        case httpx.ProxyError(), _:
            return f"the proxy {place} responds {_quoted(str(error))}"
        case _, socket.gaierror() | UnicodeError():
            host = re.sub(r":[0-9]+$", "", place)
            return f"the name {host} does not resolve; check the name, HTTPS_PROXY and DNS"
        case _, ssl.SSLError():
            return f"TLS with {place} fails: {_quoted(getattr(cause, 'verify_message', '') or str(cause))}"
        case httpx.ConnectError() | OSError(), OSError(strerror=str(reason)):
            return f"no connection to {place}: {_quoted(reason)}"
    return f"it does not respond ({type(error).__name__})"


def _cause(error: BaseException) -> BaseException:
    # Follow `__context__`, too: httpcore raises its errors without `from`.
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _quoted(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:_MAX_QUOTED]
