"""Who may: a Bearer token of ours with the right scope, checked before anything else of a request."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from flask import g, request

from sentryagent_idp.api.requests import act_for, context
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.domain.caller import Caller
from sentryagent_idp.errors import Forbidden, Unauthorized

View = TypeVar("View", bound=Callable[..., Any])


def requires(scope: str, *, or_basic: Callable[[], object] | None = None) -> Callable[[View], View]:
    """Let a view be called only by a caller that holds `scope`; `caller()` tells who it is.

    `or_basic` checks a client that authenticates by HTTP Basic instead, and raises where it may not; what it returns
    is `basic_client()`.
    """

    def guard(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            g.client = None
            if or_basic is not None and authorization()[0] == "basic":
                g.client = or_basic()
                return view(*args, **kwargs)
            g.caller = authenticated()
            if not g.caller.holds(scope):
                raise Forbidden(f"The token lacks the scope {scope}.", {"requiredScope": scope})
            return view(*args, **kwargs)

        guarded.required_scope = scope  # type: ignore[attr-defined]  # read by the test that walks every route
        return guarded  # type: ignore[return-value]  # same call signature, which wraps() cannot express

    return guard


def authenticated() -> Caller:
    """The bearer of the request's token, whose person the audit names from here on; raises `Unauthorized`."""
    found = use_cases().authentication.authenticate(bearer_token(), context())
    act_for(found.person)
    return found


def caller() -> Caller:
    """The caller that the guard let in."""
    checked: Caller = g.caller
    return checked


def basic_client() -> Any:
    """The client that the guard let in by HTTP Basic, or `None`."""
    return g.client


def authorization() -> tuple[str, str]:
    """The scheme of the Authorization header in lower case, and the credentials; both are empty without it."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower(), credentials


def bearer_token() -> str:
    """The token of the Authorization header (RFC 6750, 2.1); raises `Unauthorized` where there is none."""
    scheme, token = authorization()
    if scheme != "bearer" or not token.strip():
        raise Unauthorized(
            "Send an access token of this provider in the header `Authorization: Bearer TOKEN`."
        )
    return token.strip()
