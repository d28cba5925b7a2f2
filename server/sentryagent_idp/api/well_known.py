"""The documents through which verifiers find our keys: RFC 8414, OpenID Connect Discovery, RFC 7517."""

from typing import Any

from flask import Blueprint
from pydantic import BaseModel

from sentryagent_idp.api import API
from sentryagent_idp.api.description import Description
from sentryagent_idp.api.fields import Scope
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.domain import scopes
from sentryagent_idp.tokens.signing_key import JWKS_MAX_AGE_SECONDS, KeySet, jwks

bp = Blueprint("well_known", __name__)

_CLAIMS = ("iss", "sub", "aud", "client_id", "scope", "iat", "nbf", "exp", "jti", "provenance")


class Metadata(BaseModel, extra="allow"):
    """The authorization server's metadata (RFC 8414)."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    introspection_endpoint: str
    revocation_endpoint: str
    scopes_supported: list[Scope]


@bp.get("/.well-known/jwks.json")
@Description((KeySet,))
def keys() -> tuple[KeySet, dict[str, str]]:
    """Get the public keys that verify our tokens (RFC 7517)."""
    current = use_cases().published_keys.current()
    return jwks(current.by_kid.values()), {"Cache-Control": f"public, max-age={JWKS_MAX_AGE_SECONDS}"}


@bp.get("/.well-known/oauth-authorization-server")
@Description((Metadata,), needs_database=False)
def authorization_server() -> dict[str, Any]:
    """Get the authorization server's metadata (RFC 8414)."""
    issuer = use_cases().tokens.issuer
    client_methods = ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}{API}/token",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "introspection_endpoint": f"{issuer}{API}/token/introspect",
        "revocation_endpoint": f"{issuer}{API}/token/revoke",
        "response_types_supported": ["token"],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": client_methods,
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
        "revocation_endpoint_auth_methods_supported": client_methods,
        "scopes_supported": list(scopes.ALL_SCOPES),
    }


@bp.get("/.well-known/openid-configuration")
@Description((Metadata,))
def openid_configuration() -> dict[str, Any]:
    """Get the metadata for OpenID clients (OpenID Connect Discovery).

    There is no authorization endpoint, because no user logs in here.
    """
    current = use_cases().published_keys.current()
    return {
        **authorization_server(),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": sorted({key.alg for key in current.by_kid.values()}),
        "claims_supported": _CLAIMS,
    }
