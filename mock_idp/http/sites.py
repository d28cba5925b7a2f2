"""All issuers of one server: the first at its root, each other one below a path of its own."""

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


# Below these is what each issuer serves: another one there would hide it.
_RESERVED: Final = frozenset({"_mock", ".well-known", RUN_SERVICE_PATH.split("/")[1]})


class MakeIssuer(Protocol):
    """Makes an issuer: its `iss`, the path below which it is served, and its keys where they are there already."""

    def __call__(self, url: str, mount: str, ring: KeyRing | None) -> Issuer:
        """Raises OSError or ValueError where the keys of a file cannot be used."""


class Sites:
    """A WSGI application over several issuers; `url` is the server's own. Raises InvalidFieldError for no `iss`."""

    def __init__(self, url: str, make: MakeIssuer, issuer: str = "", ring: KeyRing | None = None) -> None:
        self._url = url
        self._make = make
        self.first = make(self._absolute(issuer), "", ring)
        self._names = {_host(url), _host(self.first.url)}
        self._others: dict[str, Issuer] = {}
        self._wsgi = DispatcherMiddleware(create_app(self.first, others=self, names=self._names))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Let the issuer with the longest path answer (PEP 3333)."""
        return self._wsgi(environ, start_response)

    def add(self, issuer: str) -> tuple[str, Issuer]:
        """Serve one more issuer, or find it; the path below which it is, and its state. Raises InvalidFieldError."""
        url = self._absolute(issuer)
        mount = urlsplit(url).path
        if not mount:
            raise InvalidFieldError("issuer", "must be a path such as /my-enterprise, or a URL with one")
        known = self._others.get(mount)
        if known and known.url == url:
            return mount, known
        if known or mount == urlsplit(self.first.url).path or not _RESERVED.isdisjoint(mount.split("/")):
            raise InvalidFieldError("issuer", f"needs a path that nothing else on this server has: {mount}")
        state = self._others[mount] = self._make(url, mount, None)
        self._names.add(_host(url))
        self._wsgi.mounts[mount] = create_app(state, names=self._names)
        return mount, state

    def restore(self) -> None:
        """Every issuer as after its start."""
        for issuer in (self.first, *self._others.values()):
            issuer.restore()

    def _absolute(self, issuer: str) -> str:
        if not issuer:
            return self._url
        require_issuer(issuer)
        return self._url + issuer if issuer.startswith("/") else issuer


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
