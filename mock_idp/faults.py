"""The catalogue of faults: what can be wrong with a token, a response, a key set. Pure; `issuer` and `app` apply it."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mock_idp.signing_keys import SigningKey, base64url, compact_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Members = dict[str, Any]


def _same(members: Members) -> Members:
    return members


def _shifted(seconds: int) -> Callable[[Members], Members]:
    def shift(claims: Members) -> Members:
        return claims | {name: claims[name] + seconds for name in ("iat", "nbf", "exp")}

    return shift


def _with(**members: object) -> Callable[[Members], Members]:
    return lambda given: given | members


def _without(name: str) -> Callable[[Members], Members]:
    return lambda given: {key: value for key, value in given.items() if key != name}


def _text_of(name: str) -> Callable[[Members], Members]:
    return lambda given: given | {name: str(given[name])}


def _signed(signing_input: bytes, key: SigningKey) -> str:
    return base64url(key.sign(signing_input))


def _spoilt(signing_input: bytes, key: SigningKey) -> str:
    signature = key.sign(signing_input)
    return base64url(bytes([signature[0] ^ 1]) + signature[1:])


def _hmac_with_public_key(signing_input: bytes, key: SigningKey) -> str:
    return base64url(hmac.digest(key.public_pem(), signing_input, hashlib.sha256))


def _no_signature(_signing_input: bytes, _key: SigningKey) -> str:
    return ""


@dataclass(frozen=True)
class TokenFault:
    """How one token differs from a good one; `story` is what a relying party has to notice."""

    story: str
    claims: Callable[[Members], Members] = _same
    header: Callable[[Members], Members] = _same
    payload: Callable[[str], str] = str
    sign: Callable[[bytes, SigningKey], str] = _signed


def _twice(payload: str) -> str:
    """A second `repository` after the first: parsers that keep the last one see another repository."""
    return payload[:-1] + ',"repository":"octo-evil/hello-agent"}'


def _long_lived(claims: Members) -> Members:
    return claims | {"iat": claims["iat"] - 18000, "nbf": claims["nbf"] - 18000, "exp": claims["iat"] + 3600}


def _slash(claims: Members) -> Members:
    return claims | {"iss": f"{claims['iss']}/"}


GOOD_TOKEN: Final = TokenFault("nothing is wrong")
TOKEN_FAULTS: Final[Mapping[str, TokenFault]] = {
    "expired": TokenFault("ended an hour ago", claims=_shifted(-3600)),
    "not-yet-valid": TokenFault("begins in an hour", claims=_shifted(3600)),
    "too-old": TokenFault("issued five hours ago with a lifetime of six", claims=_long_lived),
    "missing-exp": TokenFault("never ends", claims=_without("exp")),
    "text-times": TokenFault("`exp` is a string", claims=_text_of("exp")),
    "wrong-issuer": TokenFault("another issuer", claims=_with(iss="https://token.actions.example.com")),
    "issuer-with-slash": TokenFault("the issuer with a slash at its end", claims=_slash),
    "missing-issuer": TokenFault("no issuer", claims=_without("iss")),
    "wrong-audience": TokenFault("meant for somebody else", claims=_with(aud="https://other.example.com")),
    "audience-array": TokenFault(
        "`aud` is an array", claims=lambda given: given | {"aud": [given["aud"], "other"]}
    ),
    "missing-audience": TokenFault("no audience", claims=_without("aud")),
    "missing-subject": TokenFault("no `sub`", claims=_without("sub")),
    "missing-jti": TokenFault("no `jti`, so a replay cannot be seen", claims=_without("jti")),
    "missing-repository": TokenFault("no `repository`", claims=_without("repository")),
    "missing-repository-id": TokenFault("no `repository_id`", claims=_without("repository_id")),
    "duplicate-member": TokenFault("`repository` stands twice in the payload", payload=_twice),
    "unknown-kid": TokenFault(
        "a kid that the key set lacks", header=_with(kid="00000000-0000-5000-8000-000000000000")
    ),
    "missing-kid": TokenFault("no kid", header=_without("kid")),
    "wrong-type": TokenFault("an access token by its `typ`", header=_with(typ="at+jwt")),
    "embedded-jwk": TokenFault(
        "brings a key of its own", header=_with(jwk={"kty": "RSA", "n": "AQAB", "e": "AQAB"})
    ),
    "jku-header": TokenFault("names a key set of its own", header=_with(jku="https://evil.example.com/jwks")),
    "crit-header": TokenFault("demands an extension nobody knows", header=_with(crit=["exp"])),
    "bad-signature": TokenFault("one bit of the signature is flipped", sign=_spoilt),
    "empty-signature": TokenFault("RS256 without a signature", sign=_no_signature),
    "alg-none": TokenFault("unsigned by its own header", header=_with(alg="none"), sign=_no_signature),
    "hs256-with-public-key": TokenFault(
        "HMAC with the public key as secret", header=_with(alg="HS256"), sign=_hmac_with_public_key
    ),
    "oversize": TokenFault("64 KiB of padding", claims=_with(padding="x" * 65536)),
}


def seal(claims: Members, header: Members, key: SigningKey, fault: TokenFault = GOOD_TOKEN) -> str:
    """A compact JWS (RFC 7515, section 7.1) over claims and header as they are, spoilt where `fault` says so."""
    payload = fault.payload(compact_json(claims))
    signing_input = f"{base64url(compact_json(header).encode())}.{base64url(payload.encode())}"
    return f"{signing_input}.{fault.sign(signing_input.encode(), key)}"


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
    "missing-kid": lambda keys, _other: {"keys": [_without("kid")(key) for key in keys["keys"]]},
    "symmetric-keys": lambda keys, _other: {
        "keys": [{"kty": "oct", "alg": "HS256", "kid": key["kid"], "k": key["n"]} for key in keys["keys"]]
    },
}
DISCOVERY_FAULTS: Final[Mapping[str, Callable[[Members], Members]]] = {
    "wrong-issuer": _with(issuer="https://token.actions.example.com"),
    "missing-jwks-uri": _without("jwks_uri"),
    "foreign-jwks-uri": _with(jwks_uri="http://127.0.0.1:1/.well-known/jwks"),
}
ERROR_STATUS: Final = 400
ENDPOINTS: Final = ("token", "discovery", "jwks")
_DOCUMENT_FAULTS: Final[Mapping[str, Mapping[str, object]]] = {
    "token": TOKEN_FAULTS,
    "discovery": DISCOVERY_FAULTS,
    "jwks": KEY_SET_FAULTS,
}


def fault_names(endpoint: str) -> tuple[str, ...]:
    """The faults that an endpoint knows, those of every answer first."""
    return (*ANSWER_FAULTS, *_DOCUMENT_FAULTS[endpoint])


def json_answer(body: object, status: int = 200) -> Answer:
    """An answer with a JSON body whose members keep their order."""
    return Answer(status, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
