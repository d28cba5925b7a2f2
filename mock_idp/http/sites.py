"""All issuers of one server: the first at its root, each other one below a path of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from werkzeug.middleware.dispatcher import DispatcherMiddleware

from mock_idp.http.app import create_app
from mock_idp.strict_fields import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from mock_idp.issuer import Issuer
    from mock_idp.signing_keys import KeyRing


class MakeIssuer(Protocol):
    """Makes an issuer: its `iss`, the path below which it is served, and its keys where they are there already."""

    def __call__(self, url: str, mount: str, ring: KeyRing | None) -> Issuer:
        """Raises OSError or ValueError where the keys of a file cannot be used."""


class Sites:
    """A WSGI application over several issuers; `url` is the server's own."""

    def __init__(self, url: str, make: MakeIssuer, issuer: str = "", ring: KeyRing | None = None) -> None:
        self._url = url
        self._make = make
        self.first = make(self._absolute(issuer), "", ring)
        self._others: dict[str, Issuer] = {}
        self._wsgi = DispatcherMiddleware(create_app(self.first, others=self))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Let the issuer with the longest path answer (PEP 3333)."""
        return self._wsgi(environ, start_response)

    def add(self, issuer: str) -> tuple[str, Issuer]:
        """Serve one more issuer, or find it; the path below which it is, and its state. Raises InvalidFieldError."""
        url = self._absolute(issuer)
        mount = urlsplit(url).path
        if urlsplit(url).scheme not in {"http", "https"} or not mount.strip("/") or mount.endswith("/"):
            raise InvalidFieldError("issuer", "must be a path such as /my-enterprise, or a URL with one")
        known = self._others.get(mount)
        if known and known.url == url:
            return mount, known
        if known or mount == urlsplit(self.first.url).path or mount.startswith("/_mock"):
            raise InvalidFieldError("issuer", f"needs a path that nothing else on this server has: {mount}")
        state = self._others[mount] = self._make(url, mount, None)
        self._wsgi.mounts[mount] = create_app(state)
        return mount, state

    def restore(self) -> None:
        """Every issuer as after its start."""
        for issuer in (self.first, *self._others.values()):
            issuer.restore()

    def _absolute(self, issuer: str) -> str:
        return self._url + issuer if issuer.startswith("/") else issuer or self._url
