"""Authentication and scope checks, made before a view reads its request."""

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
    """Require a Bearer token with `scope` for a view, which gets its caller from `caller()`.

    `or_basic` authenticates a client that sends HTTP Basic credentials instead, or raises; `basic_client()` returns
    its result.
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

        guarded.required_scope = scope  # type: ignore[attr-defined]  # read by `openapi` and by a test of every route
        return guarded  # type: ignore[return-value]  # same call signature, which wraps() cannot express

    return guard


def authenticated() -> Caller:
    """Authenticate the request's Bearer token, and have the audit name its person; raises `Unauthorized`."""
    found = use_cases().authentication.authenticate(bearer_token(), context())
    act_for(found.person)
    return found


def caller() -> Caller:
    """The caller that the guard authenticated."""
    checked: Caller = g.caller
    return checked


def basic_client() -> Any:
    """The client that the guard authenticated by HTTP Basic, or `None`."""
    return g.client


def authorization() -> tuple[str, str]:
    """The Authorization header's scheme in lower case, and its credentials; both are empty without the header."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower(), credentials


def bearer_token() -> str:
    """The token in the Authorization header (RFC 6750, 2.1); raises `Unauthorized` if it is missing."""
    scheme, token = authorization()
    if scheme != "bearer" or not token.strip():
        raise Unauthorized(
            "Send an access token of this provider in the header `Authorization: Bearer TOKEN`."
        )
    return token.strip()
