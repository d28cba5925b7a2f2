"""All issuers of one server: the first one at its root, each other one below its own path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from mock_idp.claims import require_issuer
from mock_idp.http.app import create_app
from mock_idp.issuer import RUN_SERVICE_PATH
from mock_idp.strict_fields import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from mock_idp.issuer import Issuer
    from mock_idp.signing_keys import KeyRing


# Each issuer has its own endpoints below these paths; another issuer there would hide them.
_RESERVED: Final = frozenset({"_mock", ".well-known", RUN_SERVICE_PATH.split("/")[1]})


class MakeIssuer(Protocol):
    """Creates an issuer from its `iss`, the path below which it is served, and its keys if they already exist."""

    def __call__(self, url: str, mount: str, ring: KeyRing | None) -> Issuer:
        """Create the issuer. Raises OSError or ValueError if a key file cannot be used."""


class Sites:
    """A WSGI application for several issuers; `url` is the server's. Raises InvalidFieldError for an invalid `issuer`."""

    def __init__(self, url: str, make: MakeIssuer, issuer: str = "", ring: KeyRing | None = None) -> None:
        self._url = url
        self._make = make
        self.first = make(self._absolute(issuer), "", ring)
        self._names = {_host(url), _host(self.first.url)}
        self._others: dict[str, Issuer] = {}
        self._wsgi = DispatcherMiddleware(create_app(self.first, others=self, names=self._names))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass the request to the issuer with the longest matching path (PEP 3333)."""
        return self._wsgi(environ, start_response)

    def add(self, issuer: str) -> tuple[str, Issuer]:
        """Add an issuer, or find it if it exists; return its path and state. Raises InvalidFieldError."""
        url = self._absolute(issuer)
        mount = urlsplit(url).path
        if not mount:
            raise InvalidFieldError("issuer", "must be a path such as /my-enterprise, or a URL with one")
        known = self._others.get(mount)
        if known and known.url == url:
            return mount, known
        if known or mount == urlsplit(self.first.url).path or not _RESERVED.isdisjoint(mount.split("/")):
            raise InvalidFieldError(
                "issuer", f"must have a path that is not in use on this server; {mount} is taken"
            )
        state = self._others[mount] = self._make(url, mount, None)
        self._names.add(_host(url))
        self._wsgi.mounts[mount] = create_app(state, names=self._names)
        return mount, state

    def restore(self) -> None:
        """Restore every issuer to the state after its start."""
        for issuer in (self.first, *self._others.values()):
            issuer.restore()

    def _absolute(self, issuer: str) -> str:
        if not issuer:
            return self._url
        require_issuer(issuer)
        return self._url + issuer if issuer.startswith("/") else issuer


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
