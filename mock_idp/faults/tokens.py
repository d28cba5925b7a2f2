"""What can be wrong with one token, by name. Pure.

`TOKEN_FAULTS` are mistakes and differences of a GitHub token; `mock_idp.faults.forgeries` has what an attacker makes.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mock_idp.signing_keys import SigningKey, base64url, compact_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Members = dict[str, Any]


@dataclass(frozen=True)
class Keys:
    """What a token can be made with: the key that signs, one that is published and does not, and one of a stranger.

    `foreign` is made when it is first asked for; `foreign_url` is where a verifier that follows `jku` or `x5u` finds it.
    """

    signing: SigningKey
    idle: SigningKey
    foreign: Callable[[], SigningKey]
    foreign_url: str


def _same_claims(claims: Members) -> Members:
    return claims


def _same_header(header: Members, _keys: Keys) -> Members:
    return header


def _signed(signing_input: bytes, keys: Keys) -> bytes:
    return keys.signing.sign(signing_input)


@dataclass(frozen=True)
class TokenFault:
    """How one token differs from a good one; `story` is what a relying party has to notice.

    In the order in which a token is made: its members, their JSON text, the signature, the finished token.
    """

    story: str
    claims: Callable[[Members], Members] = _same_claims
    header: Callable[[Members, Keys], Members] = _same_header
    header_text: Callable[[bytes], bytes] = bytes
    payload: Callable[[bytes], bytes] = bytes
    sign: Callable[[bytes, Keys], bytes] = _signed
    wire: Callable[[str], str] = str


def with_claims(**members: object) -> Callable[[Members], Members]:
    """Claims that replace the token's own."""
    return lambda given: given | members


def without_claim(name: str) -> Callable[[Members], Members]:
    """Every claim but one."""
    return lambda given: {key: value for key, value in given.items() if key != name}


def with_header(**members: object) -> Callable[[Members, Keys], Members]:
    """Header members that replace the token's own."""
    return lambda given, _keys: given | members


def without_header(name: str) -> Callable[[Members, Keys], Members]:
    """Every header member but one."""
    return lambda given, _keys: {key: value for key, value in given.items() if key != name}


def unsigned(_signing_input: bytes, _keys: Keys) -> bytes:
    """No signature: the third part of the token is empty."""
    return b""


def hmac_with(secret: Callable[[SigningKey], bytes]) -> Callable[[bytes, Keys], bytes]:
    """HMAC-SHA-256 over something public: a verifier that lets the token choose the algorithm accepts it."""
    return lambda signing_input, keys: hmac.digest(secret(keys.signing), signing_input, hashlib.sha256)


def _shifted(seconds: int) -> Callable[[Members], Members]:
    return lambda claims: claims | {name: claims[name] + seconds for name in ("iat", "nbf", "exp")}


def _spoilt(signing_input: bytes, keys: Keys) -> bytes:
    signature = keys.signing.sign(signing_input)
    return bytes([signature[0] ^ 1]) + signature[1:]


def _twice(payload: bytes) -> bytes:
    """A second `repository` after the first: parsers that keep the last one see another repository."""
    return payload[:-1] + b',"repository":"octo-evil/hello-agent"}'


def _long_lived(claims: Members) -> Members:
    return claims | {"iat": claims["iat"] - 18000, "nbf": claims["nbf"] - 18000, "exp": claims["iat"] + 3600}


GOOD_TOKEN: Final = TokenFault("nothing is wrong")
TOKEN_FAULTS: Final[Mapping[str, TokenFault]] = {
    "expired": TokenFault("ended an hour ago", claims=_shifted(-3600)),
    "not-yet-valid": TokenFault("begins in an hour", claims=_shifted(3600)),
    "too-old": TokenFault("issued five hours ago with a lifetime of six", claims=_long_lived),
    "missing-exp": TokenFault("never ends", claims=without_claim("exp")),
    "text-times": TokenFault("`exp` is a string", claims=lambda given: given | {"exp": str(given["exp"])}),
    "wrong-issuer": TokenFault("another issuer", claims=with_claims(iss="https://token.actions.example.com")),
    "issuer-with-slash": TokenFault(
        "the issuer with a slash at its end", claims=lambda given: given | {"iss": f"{given['iss']}/"}
    ),
    "missing-issuer": TokenFault("no issuer", claims=without_claim("iss")),
    "wrong-audience": TokenFault(
        "meant for somebody else", claims=with_claims(aud="https://other.example.com")
    ),
    "audience-array": TokenFault(
        "`aud` is an array, which GitHub never sends",
        claims=lambda given: given | {"aud": [given["aud"], "other"]},
    ),
    "missing-audience": TokenFault("no audience", claims=without_claim("aud")),
    "missing-subject": TokenFault("no `sub`", claims=without_claim("sub")),
    "missing-jti": TokenFault("no `jti`, so a replay cannot be seen", claims=without_claim("jti")),
    "missing-repository": TokenFault("no `repository`", claims=without_claim("repository")),
    "missing-repository-id": TokenFault("no `repository_id`", claims=without_claim("repository_id")),
    "duplicate-member": TokenFault("`repository` stands twice in the payload", payload=_twice),
    "unknown-kid": TokenFault(
        "a kid that the key set lacks", header=with_header(kid="00000000-0000-5000-8000-000000000000")
    ),
    "missing-kid": TokenFault("no kid", header=without_header("kid")),
    "wrong-type": TokenFault("an access token by its `typ`", header=with_header(typ="at+jwt")),
    "embedded-jwk": TokenFault(
        "carries a key that it does not need",
        header=with_header(jwk={"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
    ),
    "jku-header": TokenFault(
        "names a key set of its own", header=with_header(jku="https://evil.example.com/jwks")
    ),
    "crit-header": TokenFault("demands an extension nobody knows", header=with_header(crit=["exp"])),
    "bad-signature": TokenFault("one bit of the signature is flipped", sign=_spoilt),
    "empty-signature": TokenFault("RS256 without a signature", sign=unsigned),
    "alg-none": TokenFault("unsigned by its own header", header=with_header(alg="none"), sign=unsigned),
    "hs256-with-public-key": TokenFault(
        "HMAC with the public key (PEM) as secret",
        header=with_header(alg="HS256"),
        sign=hmac_with(SigningKey.public_pem),
    ),
    "oversize": TokenFault("64 KiB of padding", claims=with_claims(padding="x" * 65536)),
}


def seal(claims: Members, header: Members, keys: Keys, fault: TokenFault = GOOD_TOKEN) -> str:
    """A compact JWS (RFC 7515, section 7.1) over claims and header as they are, spoilt where `fault` says so."""
    texts = (fault.header_text(compact_json(header).encode()), fault.payload(compact_json(claims).encode()))
    signing_input = ".".join(base64url(text) for text in texts)
    return fault.wire(f"{signing_input}.{base64url(fault.sign(signing_input.encode(), keys))}")
