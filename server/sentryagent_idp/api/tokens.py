"""`/token`, `/token/introspect` and `/token/revoke` (RFC 6749, 7662 and 7009), with errors in OAuth's shape."""

from base64 import b64decode
from urllib.parse import unquote_plus

from flask import Blueprint, Response

from sentryagent_idp import errors
from sentryagent_idp.api.description import Description
from sentryagent_idp.api.guards import authenticated, authorization, basic_client, caller, requires
from sentryagent_idp.api.models import ClientForm, IntrospectionForm, RevocationForm
from sentryagent_idp.api.requests import check_grant_type, context, limit_key, read_form, scope_of
from sentryagent_idp.api.responses import with_token
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.client import AuthenticatedClient
from sentryagent_idp.use_cases.tokens import Active, ClientToken, Inactive

bp = Blueprint("tokens", __name__)

GRANT_TYPE = "client_credentials"


@bp.post("/token")
@Description(
    (ClientToken,),
    form=ClientForm,
    credentials=("client", ""),
    example={"grant_type": GRANT_TYPE, "scope": "agents:read"},
    refusals=(
        errors.InvalidClient,
        errors.UnauthorizedClient,
        errors.UnsupportedGrantType,
        errors.ScopeNotPermitted,
        errors.RateLimited,
    ),
)
def issue() -> Response:
    """Issue a token by the client-credentials grant (RFC 6749, 4.4), to an agent outside GitHub or an admin client."""
    use_cases().address_limit.check(limit_key())
    form = read_form()
    check_grant_type(form, GRANT_TYPE)
    return with_token(use_cases().tokens.issue_to_client(_client(form), scope_of(form), context()))


def _service_client() -> AuthenticatedClient:
    """Authenticate the client of a service by HTTP Basic; raises `Forbidden` for any other client."""
    client = _client({})
    if client.service is None:
        raise errors.Forbidden(
            f"Only a service's client can introspect with its secret; send a Bearer token with {scopes.TOKENS_READ}.",
            {"requiredScope": scopes.TOKENS_READ},
        )
    return client


@bp.post("/token/introspect")
@Description(
    (Active, Inactive),
    form=IntrospectionForm,
    credentials=("client",),
    refusals=(errors.InvalidClient, errors.RateLimited),
)
@requires(scopes.TOKENS_READ, or_basic=_service_client)
def introspect() -> Active | Inactive:
    """Introspect a token: whether it is active, and its claims (RFC 7662).

    A service's client sees tokens for its service, a Bearer token those for the provider's own API, an admin all.
    """
    return use_cases().tokens.introspect(basic_client() or caller(), _token(read_form()))


@bp.post("/token/revoke")
@Description(
    media_type="",
    form=RevocationForm,
    credentials=("bearer", "client", ""),
    refusals=(errors.Unauthorized, errors.Forbidden, errors.InvalidClient, errors.RateLimited),
)
def revoke() -> tuple[str, int]:
    """Revoke a token as its bearer, as an admin, or as the client to which it was issued (RFC 7009)."""
    form = read_form()
    token, tokens = _token(form), use_cases().tokens
    scheme, credentials = authorization()
    if scheme == "bearer" and credentials.strip() == token:
        # The request itself proves that its sender holds the token.
        tokens.revoke_own(token, context())
    elif scheme == "basic" or (not scheme and "client_id" in form):
        # Each guess of a secret costs an Argon2 hash, so requests count against the same limit as at /token.
        use_cases().address_limit.check(limit_key())
        tokens.revoke_of_client(_client(form), token, context())
    else:
        tokens.revoke(authenticated(), token, context())
    return "", 200


def _token(form: dict[str, str]) -> str:
    if "token" not in form:
        raise errors.ValidationFailed("token", "it is missing")
    return form["token"]


def _client(form: dict[str, str]) -> AuthenticatedClient:
    """Authenticate the client by HTTP Basic or by the form (RFC 6749, 2.3.1)."""
    client_id, secret = _basic() or (form.get("client_id", ""), form.get("client_secret", ""))
    if "client_id" in form and form["client_id"] != client_id:
        raise errors.InvalidClient(
            "The client_id in the form differs from the one in the Authorization header; send only one of them."
        )
    with use_cases().wrong_secrets.watch(limit_key(), client_id):
        return use_cases().clients.authenticate(client_id, secret, context())


def _basic() -> tuple[str, str] | None:
    scheme, encoded = authorization()
    if scheme != "basic":
        return None
    try:
        client_id, secret = b64decode(encoded, validate=True).decode().split(":", 1)
    except ValueError as error:  # not base64, not UTF-8, or without a colon
        raise errors.InvalidClient(
            "The Basic credentials are malformed; send base64 of client_id:client_secret."
        ) from error
    return unquote_plus(client_id), unquote_plus(secret)
