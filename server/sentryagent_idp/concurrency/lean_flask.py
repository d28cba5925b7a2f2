"""Flask without the parts that the provider does not use; on each request they took longer than most views."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter, Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_Route = tuple[Rule, Mapping[str, Any]]


class _Request(Request):
    blueprints: list[str] = []  # noqa: RUF012 - no blueprint has hooks of its own


class _NoSession(SessionInterface):
    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002 - Flask's signature
        return self._none

    def is_null_session(self, obj: object) -> bool:  # noqa: ARG002 - as above
        return True


class _Adapter(MapAdapter):
    """Finds the route of a request, in a table if the path has no variable part."""

    fixed: Mapping[tuple[str, str], _Route]

    def match(self, *args: Any, **arguments: Any) -> Any:
        # Flask passes exactly this for the route of a request; for `Allow` it looks up the other methods of the path.
        is_of_request = not args and arguments == {"return_rule": True}
        found = self.fixed.get((self.default_method, self.path_info)) if is_of_request else None
        return found or super().match(*args, **arguments)


class LeanFlask(Flask):
    """Flask for views that are plain functions, blueprints without hooks, one host, and no sessions."""

    request_class = _Request
    session_interface = _NoSession()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function unchanged; Flask checks on each request whether a view or hook is a coroutine."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """The adapter that finds the route of a request; `None` outside of a request, where no URL is built."""
        if request is None:
            return None
        environ = request.environ
        adapter = _Adapter(
            self.url_map,
            server_name="",
            script_name=environ["SCRIPT_NAME"] or "/",
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=request.path,
            default_method=environ["REQUEST_METHOD"],
        )
        adapter.fixed = self._fixed
        return adapter

    @cached_property
    def _fixed(self) -> Mapping[tuple[str, str], _Route]:
        rules = (rule for rule in self.url_map.iter_rules() if not rule.arguments)
        return {(method, rule.rule): (rule, {}) for rule in rules for method in rule.methods or ()}


class WholeResponse(Response):
    """A response whose header fields are complete; werkzeug would check and copy them once more."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Send the response."""
        start_response(self.status, self.headers.to_wsgi_list())
        return () if environ["REQUEST_METHOD"] == "HEAD" else self.iter_encoded()
