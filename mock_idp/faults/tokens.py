"""The catalogue of token faults: deviations from a GitHub token, and forgeries by an attacker. Pure.

Source: RFC 8725 (JWT Best Current Practices), RFC 7515 sections 4.1 and 10, and the CVEs that a description names.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import string
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from mock_idp.faults.jws import Fields, Keys, TokenFault
from mock_idp.signing_keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ALPHABET: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
_DEPTH: Final = 5000


def with_fields(**fields: object) -> Callable[[Fields], Fields]:
    """Return a function that replaces these claims, or fields of a document."""
    return lambda given: given | fields


def without_field(name: str) -> Callable[[Fields], Fields]:
    """Return a function that removes one claim, or field of a document."""
    return lambda given: {key: value for key, value in given.items() if key != name}


def _with_header(**fields: object) -> Callable[[Fields, Keys], Fields]:
    return lambda given, _keys: given | fields


def _without_header(name: str) -> Callable[[Fields, Keys], Fields]:
    return lambda given, _keys: without_field(name)(given)


def _changed(name: str, change: Callable[[str], object]) -> Callable[[Fields], Fields]:
    return lambda given: given | {name: change(given[name])}


def _shifted(seconds: int, *names: str) -> Callable[[Fields], Fields]:
    return lambda claims: claims | {name: claims[name] + seconds for name in names}


def _long_lived(claims: Fields) -> Fields:
    return claims | {"iat": claims["iat"] - 18000, "nbf": claims["nbf"] - 18000, "exp": claims["iat"] + 3600}


def _with_appended(field: bytes) -> Callable[[bytes], bytes]:
    """Return a function that appends a field to the JSON text of an object, which `json.dumps` could not write."""
    return lambda text: text[:-1] + b"," + field + b"}"


def _instead(name: str, text: bytes) -> Callable[[bytes], bytes]:
    """Return a function that replaces the text of a field's value by invalid JSON or an invalid value."""

    def replace(payload: bytes) -> bytes:
        value = json.dumps(json.loads(payload)[name]).encode()
        return payload.replace(b'"%s":%s' % (name.encode(), value), b'"%s":%s' % (name.encode(), text))

    return replace


_deep: Final = _with_appended(b'"deep":' + b"[" * _DEPTH + b"]" * _DEPTH)


def _unsigned(_signing_input: bytes, _keys: Keys) -> bytes:
    return b""


def _flipped(signing_input: bytes, keys: Keys) -> bytes:
    signature = keys.signing.sign(signing_input)
    return bytes([signature[0] ^ 1]) + signature[1:]


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


def _hmac_with(secret: Callable[[SigningKey], bytes]) -> Callable[[bytes, Keys], bytes]:
    return lambda signing_input, keys: hmac.digest(secret(keys.signing), signing_input, hashlib.sha256)


def _der(key: SigningKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.private.public_key().public_bytes(serialization.Encoding.DER, form)


def _jwk(key: SigningKey) -> bytes:
    return json.dumps(key.jwk(), separators=(",", ":")).encode()


def _x5c(key: SigningKey) -> list[str]:
    return [base64.b64encode(key.certificate).decode()]


def _other_spelling(token: str) -> str:
    """Set an unused bit of the last character: another text, but the same bytes for a decoder that is not strict."""
    return token[:-1] + _ALPHABET[_ALPHABET.index(token[-1]) | 1]


def _flattened(token: str) -> str:
    header, payload, signature = token.split(".")
    return json.dumps({"protected": header, "payload": payload, "signature": signature})


def _none(spelling: str) -> TokenFault:
    description = f"unsigned, with `alg` spelled {spelling!r} to pass a filter for `none`"
    return TokenFault(description, header=_with_header(alg=spelling), sign=_unsigned)


def _confused(secret_name: str, secret: Callable[[SigningKey], bytes]) -> TokenFault:
    description = (
        f"HMAC with {secret_name} as secret, for a verifier that lets the token choose (CVE-2015-9235)"
    )
    return TokenFault(description, header=_with_header(alg="HS256"), sign=_hmac_with(secret))


def _by_own_key(description: str, field: str, value: Callable[[Keys], object]) -> TokenFault:
    """Return a fault that signs with a foreign key, which the header itself provides."""
    return TokenFault(
        description,
        header=lambda given, keys: given | {"kid": keys.foreign().kid, field: value(keys)},
        sign=_by_stranger,
    )


_TIMES: Final[Mapping[str, TokenFault]] = {
    "expired": TokenFault("expired an hour ago", claims=_shifted(-3600, "iat", "nbf", "exp")),
    "not-yet-valid": TokenFault("not valid for another hour", claims=_shifted(3600, "iat", "nbf", "exp")),
    "too-old": TokenFault("issued five hours ago with a lifetime of six", claims=_long_lived),
    "missing-exp": TokenFault("never expires", claims=without_field("exp")),
    "missing-iat": TokenFault("no `iat`", claims=without_field("iat")),
    "missing-nbf": TokenFault("no `nbf`", claims=without_field("nbf")),
    "future-iat": TokenFault("issued in an hour, valid now", claims=_shifted(3600, "iat", "exp")),
    "ancient-iat": TokenFault("issued in 1970 and not expired yet", claims=with_fields(iat=1)),
    "text-times": TokenFault("`exp` is a string", claims=_changed("exp", str)),
    "nan-expiry": TokenFault("`exp` is NaN: no comparison with it is true", payload=_instead("exp", b"NaN")),
    "infinite-expiry": TokenFault("`exp` is infinite", payload=_instead("exp", b"1e999")),
    "float-times": TokenFault("`exp` has a fraction", payload=_instead("exp", b"9999999999.5")),
    "boolean-times": TokenFault("`exp` is true", claims=with_fields(exp=True)),
    "null-expiry": TokenFault("`exp` is null", payload=_instead("exp", b"null")),
    "array-expiry": TokenFault("`exp` is an array", claims=with_fields(exp=[9999999999])),
}
_ISSUER: Final[Mapping[str, TokenFault]] = {
    "wrong-issuer": TokenFault("another issuer", claims=with_fields(iss="https://token.actions.example.com")),
    "missing-issuer": TokenFault("no issuer", claims=without_field("iss")),
    "issuer-with-slash": TokenFault("the issuer with a trailing slash", claims=_changed("iss", "{}/".format)),
    "issuer-in-capitals": TokenFault("the issuer in capitals", claims=_changed("iss", str.upper)),
    "issuer-with-slug": TokenFault(
        "an enterprise's issuer below the right one", claims=_changed("iss", "{}/evil-corp".format)
    ),
    "issuer-as-prefix": TokenFault(
        "another host that begins like the issuer", claims=_changed("iss", "{}.evil.example".format)
    ),
    "issuer-array": TokenFault("`iss` is an array", claims=_changed("iss", lambda iss: [iss])),
}
_AUDIENCE: Final[Mapping[str, TokenFault]] = {
    "wrong-audience": TokenFault(
        "meant for another service", claims=with_fields(aud="https://other.example.com")
    ),
    "missing-audience": TokenFault("no audience", claims=without_field("aud")),
    "audience-array": TokenFault(
        "`aud` is an array, which GitHub never sends", claims=_changed("aud", lambda aud: [aud, "other"])
    ),
    "audience-with-slash": TokenFault(
        "the audience with a trailing slash", claims=_changed("aud", "{}/".format)
    ),
    "audience-as-prefix": TokenFault(
        "another host that begins like the audience", claims=_changed("aud", "{}.evil.example".format)
    ),
    "audience-in-capitals": TokenFault("the audience in capitals", claims=_changed("aud", str.upper)),
    "audience-empty": TokenFault("an empty audience", claims=with_fields(aud="")),
    "audience-empty-array": TokenFault("an empty array of audiences", claims=with_fields(aud=[])),
}
_IDENTITY: Final[Mapping[str, TokenFault]] = {
    "missing-subject": TokenFault("no `sub`", claims=without_field("sub")),
    "subject-array": TokenFault("`sub` is an array", claims=_changed("sub", lambda sub: [sub])),
    "missing-jti": TokenFault("no `jti`, so a replay cannot be seen", claims=without_field("jti")),
    "missing-repository": TokenFault("no `repository`", claims=without_field("repository")),
    "missing-repository-id": TokenFault("no `repository_id`", claims=without_field("repository_id")),
    "repository-array": TokenFault(
        "`repository` is an array", claims=_changed("repository", lambda name: [name])
    ),
    "repository-homoglyph": TokenFault(
        "`repository` with letters that only look right",
        claims=_changed("repository", lambda name: name.replace("o", "\u043e").replace("e", "\u0435")),
    ),
}
_ALGORITHMS: Final[Mapping[str, TokenFault]] = {
    "alg-none": TokenFault("unsigned, as its header says", header=_with_header(alg="none"), sign=_unsigned),
    "alg-none-capital": _none("None"),
    "alg-none-upper": _none("NONE"),
    "alg-none-mixed": _none("nOnE"),
    "alg-none-blank": _none("none "),
    "alg-none-signed": TokenFault("`alg` none with a real signature", header=_with_header(alg="none")),
    "alg-empty": TokenFault("empty `alg` and no signature", header=_with_header(alg=""), sign=_unsigned),
    "alg-missing": TokenFault("no `alg`", header=_without_header("alg")),
    "alg-array": TokenFault("`alg` is an array", header=_with_header(alg=["RS256", "none"])),
    "alg-lower-case": TokenFault(
        "`alg` is rs256, which no standard defines", header=_with_header(alg="rs256")
    ),
    "alg-ps256": TokenFault(
        "PS256 by the right key: the issuer has never used it", header=_with_header(alg="PS256"), sign=_pss
    ),
    "alg-rs512-label": TokenFault("an RS256 signature labelled RS512", header=_with_header(alg="RS512")),
    "es256-zeros": TokenFault(
        "ES256 with a signature of zeros, once valid for any key (CVE-2022-21449)",
        header=_with_header(alg="ES256"),
        sign=lambda _input, _keys: bytes(64),
    ),
    "hs256-with-public-key": _confused("the public key (PEM)", SigningKey.public_pem),
    "hs256-with-der": _confused("the public key (DER)", _der),
    "hs256-with-jwk": _confused("the JWK's text", _jwk),
    "hs256-with-certificate": _confused("the published certificate", lambda key: key.certificate),
    "hs256-with-kid": _confused("the kid", lambda key: key.kid.encode()),
    "hs256-with-nothing": _confused("the empty string", lambda _key: b""),
}
_KEYS: Final[Mapping[str, TokenFault]] = {
    "unknown-kid": TokenFault(
        "a kid that is not in the key set", header=_with_header(kid="00000000-0000-5000-8000-000000000000")
    ),
    "missing-kid": TokenFault("no kid", header=_without_header("kid")),
    "foreign-key": TokenFault("signed by a stranger under the issuer's kid", sign=_by_stranger),
    "foreign-kid": TokenFault(
        "signed by a stranger under the stranger's kid",
        header=lambda given, keys: given | {"kid": keys.foreign().kid},
        sign=_by_stranger,
    ),
    "other-published-kid": TokenFault(
        "the kid of a published key that did not sign it",
        header=lambda given, keys: given | {"kid": keys.idle.kid},
    ),
    "signed-by-idle-key": TokenFault("signed by a published key other than the kid's", sign=_by_idle_key),
    "kid-number": TokenFault("the kid is a number", header=_with_header(kid=0)),
    "kid-null": TokenFault("the kid is null", header_text=_instead("kid", b"null")),
    "kid-path": TokenFault(
        "the kid is a path to an empty file, signed with an empty secret",
        header=_with_header(alg="HS256", kid="../../../../../../dev/null"),
        sign=_hmac_with(lambda _key: b""),
    ),
    "kid-sql": TokenFault(
        "the kid is SQL that selects the attacker's secret",
        header=_with_header(alg="HS256", kid="x' UNION SELECT 'secret' --"),
        sign=_hmac_with(lambda _key: b"secret"),
    ),
    "kid-long": TokenFault("a kid of 10,000 characters", header=_with_header(kid="k" * 10_000)),
    "embedded-jwk": TokenFault(
        "carries a key that it does not need",
        header=_with_header(jwk={"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
    ),
    "jku-header": TokenFault(
        "names a key set of its own", header=_with_header(jku="https://evil.example.com/jwks")
    ),
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
    "wrong-type": TokenFault("an access token by its `typ`", header=_with_header(typ="at+jwt")),
    "crit-header": TokenFault("requires an unknown extension", header=_with_header(crit=["exp"])),
    "crit-empty": TokenFault("`crit` is empty (RFC 7515, 4.1.11)", header=_with_header(crit=[])),
    "crit-unencoded": TokenFault(
        "asks for an unencoded payload (RFC 7797)", header=_with_header(b64=False, crit=["b64"])
    ),
    "b64-without-crit": TokenFault("`b64` false without `crit`", header=_with_header(b64=False)),
    "zip-header": TokenFault("claims to be compressed (RFC 7516, 4.1.3)", header=_with_header(zip="DEF")),
    "enc-header": TokenFault("claims to be encrypted", header=_with_header(enc="A256GCM")),
    "duplicate-header-member": TokenFault(
        "duplicate `alg`, the last one none, and no signature",
        header_text=_with_appended(b'"alg":"none"'),
        sign=_unsigned,
    ),
    "header-array": TokenFault("the header is an array", header_text=lambda text: b"[" + text + b"]"),
}
_SIGNATURE: Final[Mapping[str, TokenFault]] = {
    "bad-signature": TokenFault("one bit of the signature is flipped", sign=_flipped),
    "empty-signature": TokenFault("RS256 without a signature", sign=_unsigned),
    "signature-of-another": TokenFault("the signature of another token", sign=_of_another_token),
    "signature-short": TokenFault("the signature lacks its last byte", sign=_shortened),
    "signature-long": TokenFault("a zero byte before the signature", sign=_lengthened),
    "signature-malleable": TokenFault(
        "the signature spelled differently: the same bytes, past a replay list of token texts",
        serialize=_other_spelling,
    ),
}
_GRAMMAR: Final[Mapping[str, TokenFault]] = {
    "oversize": TokenFault("64 KiB of padding", claims=with_fields(padding="x" * 65536)),
    "padded": TokenFault("base64 padding at its end", serialize=lambda token: f"{token}=="),
    "standard-base64": TokenFault(
        "the alphabet of standard base64",
        claims=with_fields(workflow="?" * 6),
        serialize=lambda token: token.replace("-", "+").replace("_", "/"),
    ),
    "line-break": TokenFault("a line break at its end", serialize=lambda token: f"{token}\n"),
    "blank-inside": TokenFault("a space inside", serialize=lambda token: f"{token[:9]} {token[9:]}"),
    "two-parts": TokenFault("no third part", serialize=lambda token: token.rpartition(".")[0]),
    "four-parts": TokenFault("a fourth part", serialize=lambda token: f"{token}.e30"),
    "five-parts": TokenFault("the five parts of an encrypted token", serialize="{}.e30.e30".format),
    "flattened": TokenFault("the JSON form of a signature (RFC 7515, 7.2.2)", serialize=_flattened),
}
_PAYLOAD: Final[Mapping[str, TokenFault]] = {
    "duplicate-member": TokenFault(
        "duplicate `repository`; parsers that keep the last one see another repository",
        payload=_with_appended(b'"repository":"octo-evil/hello-agent"'),
    ),
    "duplicate-subject": TokenFault(
        "duplicate `sub`", payload=_with_appended(b'"sub":"repo:octo-evil/evil:x"')
    ),
    "duplicate-audience": TokenFault(
        "duplicate `aud`", payload=_with_appended(b'"aud":"https://evil.example.com"')
    ),
    "payload-array": TokenFault("the claims in an array", payload=lambda text: b"[" + text + b"]"),
    "payload-empty": TokenFault("no claims", payload=lambda _text: b"{}"),
    "payload-invalid-utf8": TokenFault("bytes that are not UTF-8", payload=_with_appended(b'"x":"\xff\xfe"')),
    "payload-trailing": TokenFault("text after the claims", payload=lambda text: text + b"{}"),
    "deep-json": TokenFault(
        f"{_DEPTH:,} nested arrays, for a parser that recurses",
        payload=_deep,
    ),
    "deep-json-forged": TokenFault(
        "the same, signed by a stranger, for a verifier that parses first", payload=_deep, sign=_by_stranger
    ),
}

TOKEN_FAULTS: Final[Mapping[str, TokenFault]] = {
    **_TIMES,
    **_ISSUER,
    **_AUDIENCE,
    **_IDENTITY,
    **_ALGORITHMS,
    **_KEYS,
    **_HEADER,
    **_SIGNATURE,
    **_GRAMMAR,
    **_PAYLOAD,
}
