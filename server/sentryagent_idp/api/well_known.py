"""The documents at the root by which verifiers find our keys: RFC 8414, OpenID Connect Discovery, RFC 7517."""

from typing import Any

from flask import Blueprint, Response, jsonify

from sentryagent_idp.api import API
from sentryagent_idp.api.use_cases import services
from sentryagent_idp.domain import scopes
from sentryagent_idp.tokens.signing_key import JWKS_MAX_AGE_SECONDS, jwks

bp = Blueprint("well_known", __name__)


@bp.get("/.well-known/jwks.json")
def keys() -> Response:
    """The public keys of our tokens."""
    held = services().key_sets.current()
    response = jsonify(jwks(held.by_kid.values()))
    response.headers["Cache-Control"] = f"public, max-age={JWKS_MAX_AGE_SECONDS}"
    return response


@bp.get("/.well-known/oauth-authorization-server")
def authorization_server() -> dict[str, Any]:
    """The metadata of RFC 8414."""
    return _metadata()


@bp.get("/.well-known/openid-configuration")
def openid_configuration() -> dict[str, Any]:
    """The same facts where OpenID clients look; there is no authorization endpoint, for no user ever logs in here."""
    held = services().key_sets.current()
    return {
        **_metadata(),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": sorted({key.alg for key in held.by_kid.values()}),
        "claims_supported": [
            "iss",
            "sub",
            "aud",
            "client_id",
            "scope",
            "iat",
            "nbf",
            "exp",
            "jti",
            "provenance",
        ],
    }


def _metadata() -> dict[str, Any]:
    issuer = services().issuer
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
        "revocation_endpoint_auth_methods_supported": client_methods,
        "scopes_supported": list(scopes.ALL_SCOPES),
    }
