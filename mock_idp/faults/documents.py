"""The catalogue of faults: what can be wrong with an answer, a key set, a discovery document. Pure; `app` applies it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from mock_idp.faults.forgeries import FORGERIES
from mock_idp.faults.tokens import TOKEN_FAULTS, Members, with_claims, without_claim

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mock_idp.signing_keys import SigningKey


@dataclass(frozen=True)
class Answer:
    """An HTTP answer before it is sent.

    `cut` promises the whole body and sends half of it; `reset` breaks the connection; `redirect` points to the very
    URL that was asked for.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    redirect: bool = False
    cut: bool = False
    reset: bool = False


ANSWER_FAULTS: Final[Mapping[str, Callable[[Answer], Answer]]] = {
    "reset": lambda given: replace(given, reset=True),
    "truncated": lambda given: replace(given, cut=True),
    "empty": lambda given: replace(given, body=b""),
    "garbage": lambda given: replace(given, body=b"<html>bad gateway</html>"),
    "wrong-content-type": lambda given: replace(given, content_type="text/html"),
    "not-an-object": lambda given: replace(given, body=b'["value"]'),
    "missing-members": lambda given: replace(given, body=b"{}"),
    "huge": lambda given: replace(given, body=b'{"padding":"' + b"x" * (16 << 20) + b'"}'),
    "redirect": lambda given: replace(given, status=302, body=b"", redirect=True),
}


def _foreign_key(keys: Members, other: SigningKey) -> Members:
    """Every kid stays, every key is another one."""
    return {"keys": [other.jwk() | {"kid": key["kid"]} for key in keys["keys"]]}


KEY_SET_FAULTS: Final[Mapping[str, Callable[[Members, SigningKey], Members]]] = {
    "empty-keys": lambda _keys, _other: {"keys": []},
    "wrong-keys": _foreign_key,
    "duplicate-kid": lambda keys, other: {"keys": [*_foreign_key(keys, other)["keys"], *keys["keys"]]},
    "missing-kid": lambda keys, _other: {"keys": [without_claim("kid")(key) for key in keys["keys"]]},
    "symmetric-keys": lambda keys, _other: {
        "keys": [{"kty": "oct", "alg": "HS256", "kid": key["kid"], "k": key["n"]} for key in keys["keys"]]
    },
}
DISCOVERY_FAULTS: Final[Mapping[str, Callable[[Members], Members]]] = {
    "wrong-issuer": with_claims(issuer="https://token.actions.example.com"),
    "missing-jwks-uri": without_claim("jwks_uri"),
    "foreign-jwks-uri": with_claims(jwks_uri="http://127.0.0.1:1/.well-known/jwks"),
}
ERROR_STATUS: Final = 400
ENDPOINTS: Final = ("token", "discovery", "jwks")
_DOCUMENT_FAULTS: Final[Mapping[str, Mapping[str, object]]] = {
    "token": {**TOKEN_FAULTS, **FORGERIES},
    "discovery": DISCOVERY_FAULTS,
    "jwks": KEY_SET_FAULTS,
}


def fault_names(endpoint: str) -> tuple[str, ...]:
    """The faults that an endpoint knows, those of every answer first."""
    return (*ANSWER_FAULTS, *_DOCUMENT_FAULTS[endpoint])


def json_answer(body: object, status: int = 200) -> Answer:
    """An answer with a JSON body whose members keep their order."""
    return Answer(status, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
