"""The faults of the key set and the discovery document, by name. Pure; `http.app` applies them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mock_idp.faults.tokens import with_fields, without_field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mock_idp.faults.jws import Fields
    from mock_idp.signing_keys import SigningKey


def _foreign_key(keys: Fields, other: SigningKey) -> Fields:
    """Replace every key by another one under the same kid."""
    return {"keys": [other.jwk() | {"kid": key["kid"]} for key in keys["keys"]]}


KEY_SET_FAULTS: Final[Mapping[str, Callable[[Fields, SigningKey], Fields]]] = {
    "empty-keys": lambda _keys, _other: {"keys": []},
    "wrong-keys": _foreign_key,
    "duplicate-kid": lambda keys, other: {"keys": [*_foreign_key(keys, other)["keys"], *keys["keys"]]},
    "missing-kid": lambda keys, _other: {"keys": [without_field("kid")(key) for key in keys["keys"]]},
    "symmetric-keys": lambda keys, _other: {
        "keys": [{"kty": "oct", "alg": "HS256", "kid": key["kid"], "k": key["n"]} for key in keys["keys"]]
    },
}
DISCOVERY_FAULTS: Final[Mapping[str, Callable[[Fields], Fields]]] = {
    "wrong-issuer": with_fields(issuer="https://token.actions.example.com"),
    "missing-jwks-uri": without_field("jwks_uri"),
    "foreign-jwks-uri": with_fields(jwks_uri="http://127.0.0.1:1/.well-known/jwks"),
}
