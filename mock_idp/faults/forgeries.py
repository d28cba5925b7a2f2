"""Tokens that an attacker makes, by name; no verifier may accept one. Pure.

Source: RFC 8725 (JWT Best Current Practices), RFC 7515 sections 4.1 and 10, and the CVEs that a story names.
"""

from __future__ import annotations

import base64
import json
import string
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from mock_idp.faults.tokens import (
    Keys,
    Members,
    TokenFault,
    hmac_with,
    unsigned,
    with_claims,
    with_header,
    without_claim,
    without_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mock_idp.signing_keys import SigningKey

_ALPHABET: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
_DEPTH: Final = 5000


def _changed(name: str, change: Callable[[str], object]) -> Callable[[Members], Members]:
    return lambda given: given | {name: change(given[name])}


def _inserted(member: bytes) -> Callable[[bytes], bytes]:
    """One more member at the end of the object's text: what `json.dumps` would not write."""
    return lambda text: text[:-1] + b"," + member + b"}"


def _instead(name: str, text: bytes) -> Callable[[bytes], bytes]:
    """The text of one member's value replaced by what is no good JSON, or no good value."""

    def replace(payload: bytes) -> bytes:
        value = json.dumps(json.loads(payload)[name]).encode()
        return payload.replace(b'"%s":%s' % (name.encode(), value), b'"%s":%s' % (name.encode(), text))

    return replace


def _by_stranger(signing_input: bytes, keys: Keys) -> bytes:
    return keys.foreign().sign(signing_input)


def _by_idle_key(signing_input: bytes, keys: Keys) -> bytes:
    return keys.idle.sign(signing_input)


def _pss(signing_input: bytes, keys: Keys) -> bytes:
    salted = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
    return keys.signing.private.sign(signing_input, salted, hashes.SHA256())


def _of_another_token(_signing_input: bytes, keys: Keys) -> bytes:
    return keys.signing.sign(b"eyJhbGciOiJSUzI1NiJ9.e30")


def _shortened(signing_input: bytes, keys: Keys) -> bytes:
    return keys.signing.sign(signing_input)[:-1]


def _lengthened(signing_input: bytes, keys: Keys) -> bytes:
    return b"\0" + keys.signing.sign(signing_input)


def _der(key: SigningKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.private.public_key().public_bytes(serialization.Encoding.DER, form)


def _jwk(key: SigningKey) -> bytes:
    return json.dumps(key.jwk(), separators=(",", ":")).encode()


def _x5c(key: SigningKey) -> list[str]:
    return [base64.b64encode(key.certificate).decode()]


def _other_spelling(token: str) -> str:
    """The last character's unused bits set: other text, the same bytes for a decoder that is not strict."""
    return token[:-1] + _ALPHABET[_ALPHABET.index(token[-1]) | 1]


def _flattened(token: str) -> str:
    header, payload, signature = token.split(".")
    return json.dumps({"protected": header, "payload": payload, "signature": signature})


def _none(spelling: str) -> TokenFault:
    story = f"unsigned, with `alg` spelt {spelling!r} past a filter for `none`"
    return TokenFault(story, header=with_header(alg=spelling), sign=unsigned)


def _confused(secret_name: str, secret: Callable[[SigningKey], bytes]) -> TokenFault:
    story = f"HMAC with {secret_name} as secret, for a verifier that lets the token choose (CVE-2015-9235)"
    return TokenFault(story, header=with_header(alg="HS256"), sign=hmac_with(secret))


def _by_own_key(story: str, member: str, value: Callable[[Keys], object]) -> TokenFault:
    """Signed by a stranger's key that the header itself offers."""
    return TokenFault(
        story,
        header=lambda given, keys: given | {"kid": keys.foreign().kid, member: value(keys)},
        sign=_by_stranger,
    )


_ALGORITHMS: Final[Mapping[str, TokenFault]] = {
    "alg-none-capital": _none("None"),
    "alg-none-upper": _none("NONE"),
    "alg-none-mixed": _none("nOnE"),
    "alg-none-blank": _none("none "),
    "alg-none-signed": TokenFault("`alg` none beside a real signature", header=with_header(alg="none")),
    "alg-empty": TokenFault(
        "`alg` is empty and nothing is signed", header=with_header(alg=""), sign=unsigned
    ),
    "alg-missing": TokenFault("no `alg`", header=without_header("alg")),
    "alg-array": TokenFault("`alg` is an array", header=with_header(alg=["RS256", "none"])),
    "alg-lower-case": TokenFault("`alg` is rs256, which no standard knows", header=with_header(alg="rs256")),
    "alg-ps256": TokenFault(
        "PS256 by the right key: the issuer has never used it", header=with_header(alg="PS256"), sign=_pss
    ),
    "alg-rs512-label": TokenFault("an RS256 signature labelled RS512", header=with_header(alg="RS512")),
    "es256-zeros": TokenFault(
        "ES256 with a signature of zeros, valid for any key once (CVE-2022-21449)",
        header=with_header(alg="ES256"),
        sign=lambda _input, _keys: bytes(64),
    ),
    "hs256-with-der": _confused("the public key (DER)", _der),
    "hs256-with-jwk": _confused("the JWK's text", _jwk),
    "hs256-with-certificate": _confused("the published certificate", lambda key: key.certificate),
    "hs256-with-kid": _confused("the kid", lambda key: key.kid.encode()),
    "hs256-with-nothing": _confused("the empty string", lambda _key: b""),
}
_KEYS: Final[Mapping[str, TokenFault]] = {
    "foreign-key": TokenFault("signed by a stranger under the issuer's kid", sign=_by_stranger),
    "foreign-kid": TokenFault(
        "signed by a stranger under the stranger's kid",
        header=lambda given, keys: given | {"kid": keys.foreign().kid},
        sign=_by_stranger,
    ),
    "other-published-kid": TokenFault(
        "the kid of another published key than the one that signed",
        header=lambda given, keys: given | {"kid": keys.idle.kid},
    ),
    "signed-by-idle-key": TokenFault("signed by another published key than the kid says", sign=_by_idle_key),
    "kid-number": TokenFault("the kid is a number", header=with_header(kid=0)),
    "kid-null": TokenFault("the kid is null", header_text=_instead("kid", b"null")),
    "kid-path": TokenFault(
        "the kid is a path to an empty file, signed with an empty secret",
        header=with_header(alg="HS256", kid="../../../../../../dev/null"),
        sign=hmac_with(lambda _key: b""),
    ),
    "kid-sql": TokenFault(
        "the kid is SQL that selects the attacker's secret",
        header=with_header(alg="HS256", kid="x' UNION SELECT 'secret' --"),
        sign=hmac_with(lambda _key: b"secret"),
    ),
    "kid-long": TokenFault("a kid of 10,000 characters", header=with_header(kid="k" * 10_000)),
    "own-jwk": _by_own_key(
        "brings its own key in `jwk` (CVE-2018-0114)", "jwk", lambda keys: keys.foreign().jwk()
    ),
    "own-jku": _by_own_key(
        "names its own key set in `jku`; a verifier that fetches it is seen in the log",
        "jku",
        lambda keys: keys.foreign_url,
    ),
    "own-x5u": _by_own_key(
        "names its own certificate in `x5u`; a verifier that fetches it is seen in the log",
        "x5u",
        lambda keys: keys.foreign_url,
    ),
    "own-x5c": _by_own_key("brings its own certificate in `x5c`", "x5c", lambda keys: _x5c(keys.foreign())),
}
_HEADER: Final[Mapping[str, TokenFault]] = {
    "crit-empty": TokenFault("`crit` is empty (RFC 7515, 4.1.11)", header=with_header(crit=[])),
    "crit-unencoded": TokenFault(
        "asks for an unencoded payload (RFC 7797)", header=with_header(b64=False, crit=["b64"])
    ),
    "b64-without-crit": TokenFault("`b64` false without `crit`", header=with_header(b64=False)),
    "zip-header": TokenFault("says that it is compressed (RFC 7516, 4.1.3)", header=with_header(zip="DEF")),
    "enc-header": TokenFault("says that it is encrypted", header=with_header(enc="A256GCM")),
    "duplicate-header-member": TokenFault(
        "`alg` stands twice, none last, and nothing is signed",
        header_text=_inserted(b'"alg":"none"'),
        sign=unsigned,
    ),
    "header-array": TokenFault("the header is an array", header_text=lambda text: b"[" + text + b"]"),
}
_SIGNATURE: Final[Mapping[str, TokenFault]] = {
    "signature-of-another": TokenFault("the signature of another token", sign=_of_another_token),
    "signature-short": TokenFault("the signature lacks its last byte", sign=_shortened),
    "signature-long": TokenFault("a zero byte before the signature", sign=_lengthened),
    "signature-malleable": TokenFault(
        "the signature spelt otherwise: the same bytes, past a replay list of token texts",
        wire=_other_spelling,
    ),
}
_GRAMMAR: Final[Mapping[str, TokenFault]] = {
    "padded": TokenFault("base64 padding at its end", wire=lambda token: f"{token}=="),
    "standard-base64": TokenFault(
        "the alphabet of plain base64",
        claims=with_claims(workflow="?" * 6),
        wire=lambda token: token.replace("-", "+").replace("_", "/"),
    ),
    "line-break": TokenFault("a line break at its end", wire=lambda token: f"{token}\n"),
    "blank-inside": TokenFault("a blank inside", wire=lambda token: f"{token[:9]} {token[9:]}"),
    "two-parts": TokenFault("no third part", wire=lambda token: token.rpartition(".")[0]),
    "four-parts": TokenFault("a fourth part", wire=lambda token: f"{token}.e30"),
    "five-parts": TokenFault("the five parts of an encrypted token", wire=lambda token: f"{token}.e30.e30"),
    "flattened": TokenFault("the JSON form of a signature (RFC 7515, 7.2.2)", wire=_flattened),
}
_PAYLOAD: Final[Mapping[str, TokenFault]] = {
    "payload-array": TokenFault("the claims in an array", payload=lambda text: b"[" + text + b"]"),
    "payload-empty": TokenFault("no claims", payload=lambda _text: b"{}"),
    "payload-invalid-utf8": TokenFault("bytes that are no UTF-8", payload=_inserted(b'"x":"\xff\xfe"')),
    "payload-trailing": TokenFault("text behind the claims", payload=lambda text: text + b"{}"),
    "deep-json": TokenFault(
        f"{_DEPTH:,} nested arrays, for a parser that recurses",
        payload=_inserted(b'"deep":' + b"[" * _DEPTH + b"]" * _DEPTH),
    ),
    "duplicate-subject": TokenFault(
        "`sub` stands twice", payload=_inserted(b'"sub":"repo:octo-evil/evil:x"')
    ),
    "duplicate-audience": TokenFault(
        "`aud` stands twice", payload=_inserted(b'"aud":"https://evil.example.com"')
    ),
    "nan-expiry": TokenFault("`exp` is NaN: no comparison with it is true", payload=_instead("exp", b"NaN")),
    "infinite-expiry": TokenFault("`exp` is infinite", payload=_instead("exp", b"1e999")),
    "float-times": TokenFault("`exp` has a fraction", payload=_instead("exp", b"9999999999.5")),
    "boolean-times": TokenFault("`exp` is true", claims=with_claims(exp=True)),
    "null-expiry": TokenFault("`exp` is null", payload=_instead("exp", b"null")),
    "array-expiry": TokenFault("`exp` is an array", claims=with_claims(exp=[9999999999])),
}
_CLAIMS: Final[Mapping[str, TokenFault]] = {
    "missing-iat": TokenFault("no `iat`", claims=without_claim("iat")),
    "missing-nbf": TokenFault("no `nbf`", claims=without_claim("nbf")),
    "future-iat": TokenFault(
        "issued in an hour, valid now",
        claims=lambda given: given | {"iat": given["iat"] + 3600, "exp": given["exp"] + 3600},
    ),
    "ancient-iat": TokenFault("issued in 1970 and still not ended", claims=with_claims(iat=1)),
    "issuer-in-capitals": TokenFault("the issuer in capitals", claims=_changed("iss", str.upper)),
    "issuer-with-slug": TokenFault(
        "the issuer of some enterprise below the right one", claims=_changed("iss", "{}/evil-corp".format)
    ),
    "issuer-as-prefix": TokenFault(
        "another host that begins like the issuer", claims=_changed("iss", "{}.evil.example".format)
    ),
    "issuer-array": TokenFault("`iss` is an array", claims=_changed("iss", lambda iss: [iss])),
    "audience-with-slash": TokenFault(
        "the audience with a slash at its end", claims=_changed("aud", "{}/".format)
    ),
    "audience-as-prefix": TokenFault(
        "another host that begins like the audience", claims=_changed("aud", "{}.evil.example".format)
    ),
    "audience-in-capitals": TokenFault("the audience in capitals", claims=_changed("aud", str.upper)),
    "audience-empty": TokenFault("an empty audience", claims=with_claims(aud="")),
    "audience-empty-array": TokenFault("an array of no audiences", claims=with_claims(aud=[])),
    "subject-array": TokenFault("`sub` is an array", claims=_changed("sub", lambda sub: [sub])),
    "repository-array": TokenFault(
        "`repository` is an array", claims=_changed("repository", lambda name: [name])
    ),
    "repository-homoglyph": TokenFault(
        "`repository` with a letter that only looks right",
        claims=_changed("repository", lambda name: name.replace("o", "\u043e").replace("e", "\u0435")),
    ),
}

FORGERIES: Final[Mapping[str, TokenFault]] = {
    **_ALGORITHMS,
    **_KEYS,
    **_HEADER,
    **_SIGNATURE,
    **_GRAMMAR,
    **_PAYLOAD,
    **_CLAIMS,
}
