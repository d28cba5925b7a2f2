"""Verification of GitHub's ID tokens: the only way to turn one into `SignedClaims`.

`jwt.decode` is not used: it would parse the token a second time and by other rules (duplicate fields, padding, floats
as times), reads its own clock, and does not say which check failed first. Only PyJWT's RS256 is used.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Protocol

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from sentryagent_idp.domain.identity import (
    CLAIM_PREFIXES,
    CLOCK_LEEWAY_SECONDS,
    OPTIONAL_CLAIMS,
    SignedClaims,
)
from sentryagent_idp.errors import InvalidOidcToken
from sentryagent_idp.jose import compact_jws
from sentryagent_idp.jose.compact_jws import UnverifiedJwt

REQUIRED_TIMES = ("exp", "iat", "nbf")
REQUIRED_STRINGS = (
    "sub",
    "aud",
    "jti",
    "repository",
    "repository_id",
    "repository_owner_id",
    "ref",
    "event_name",
)
OPTIONAL_STRINGS = OPTIONAL_CLAIMS
"""The other claims that `WorkflowIdentity` reads, besides those with one of its prefixes; the rest are ignored."""

_MAX_STRING_LENGTH = 4 * 1024
"""Characters of a claim that is compared or used as a key; a ref has up to 700. `sub` is neither, and may combine others."""

_MAX_SHOWN_LENGTH = 100

_MAX_TIME = 253_402_300_709
"""90 s before the end of the year 9999, Python's last date: leaves room for keeping a used `jti` after `exp`."""

_MAY_BE_EMPTY = frozenset({"ref"})
"""A deployment of a commit has no ref."""

_PREFIXES = tuple(CLAIM_PREFIXES.values())
_REQUIRED = (*REQUIRED_STRINGS, *REQUIRED_TIMES)
# A list of audiences is well-formed (RFC 7519, 4.1.3); _check_audience refuses it.
_LIKE_NO_OTHER = {"aud": list | str, "sub": str}
_Text = Annotated[str, msgspec.Meta(max_length=_MAX_STRING_LENGTH)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=_MAX_TIME)]
_TYPES: Any = msgspec.defstruct(
    "_TYPES",
    [
        *(
            (name, _LIKE_NO_OTHER.get(name, _Text), "")
            for name in ("iss", *REQUIRED_STRINGS, *OPTIONAL_STRINGS)
        ),
        *((name, _Time, 0) for name in REQUIRED_TIMES),
    ],
)
_AT_FAULT = re.compile(r"at `\$\.(\w+)")
_RS256 = jwt.get_algorithm_by_name("RS256")


class IssuerKeys(Protocol):
    """GitHub's public keys."""

    def find(self, kid: str) -> RSAPublicKey:
        """Return the key with this id.

        Raises `IssuerUnavailable` if no key set is cached and none can be fetched,
        `InvalidOidcToken` (`unknown_key`) if the cached set does not contain the key.
        """


def verify(
    unverified_token: str, *, issuers: Mapping[str, IssuerKeys], audience: str, now: int, max_age_seconds: int
) -> SignedClaims:
    """Return the claims of a token that one of the `issuers` signed for us, valid at `now` (seconds since the epoch).

    A token is verified only with the keys of the issuer that it names (B16).
    The order of the checks is part of the interface: the first check that fails determines the `reason`.
    Raises `InvalidOidcToken`, or `IssuerUnavailable` if there is no key to verify the token with.
    """
    token = read(unverified_token)
    _check_type(token)
    _check_algorithm(token)
    keys = _keys_of_issuer(token, issuers)
    _check_signature(token, keys.find(token.kid))
    try:
        _check_presence(token)
        _check_audience(token, audience)
        _check_times(token, now, max_age_seconds)
    except InvalidOidcToken as refusal:
        refusal.claims = token.claims
        raise
    return SignedClaims(MappingProxyType(dict(token.claims)))


def read(unverified_token: str) -> UnverifiedJwt:
    """Parse a token and check the types of its claims, without verifying it.

    Raises `InvalidOidcToken` (`malformed`).
    """
    try:
        token = compact_jws.read(unverified_token)
    except compact_jws.OversizedToken as error:
        raise _over_limit(str(error)) from error
    except compact_jws.MalformedToken as error:
        raise _malformed(str(error)) from error
    _check_types(token.claims)
    return token


def _check_types(claims: Mapping[str, Any]) -> None:
    try:
        msgspec.convert(claims, _TYPES)
    except msgspec.ValidationError as error:
        name = next(iter(_AT_FAULT.findall(str(error))))  # msgspec's message can contain values
        if isinstance(claims[name], str) and name not in REQUIRED_TIMES:
            raise _over_limit(f"its claim {name} has more than {_MAX_STRING_LENGTH} characters") from error
        kind = "a whole number of seconds" if name in REQUIRED_TIMES else "a string"
        raise _malformed(f"its claim {name} is not {kind}") from error
    for name, value in claims.items():
        if name.startswith(_PREFIXES) and not isinstance(value, str):
            raise _malformed(f"its claim {name} is not a string")


def _malformed(problem: str) -> InvalidOidcToken:
    return InvalidOidcToken(
        "malformed", f"The token cannot be read: {problem}; send GitHub's ID token exactly as it was issued."
    )


def _over_limit(problem: str) -> InvalidOidcToken:
    return InvalidOidcToken(
        "malformed",
        f"The token is too large: {problem}, a limit of this provider; shorten its contents on GitHub, such as the "
        "custom properties that the organisation adds to its ID tokens.",
    )


def _check_type(token: UnverifiedJwt) -> None:
    # Our own access tokens (`at+jwt`) must never be accepted as an identity (RFC 8725, 3.11; B15).
    if token.typ != "JWT":
        raise InvalidOidcToken(
            "wrong_type",
            "The token is not an ID token; send the one that GitHub issued to the job, with typ JWT.",
        )


def _check_algorithm(token: UnverifiedJwt) -> None:
    # One algorithm, chosen by us and not by the token: neither `none` nor HMAC with the public key (B1).
    if token.alg != "RS256":
        raise InvalidOidcToken(
            "algorithm_not_allowed", "The token must be signed with RS256, as GitHub's ID tokens are."
        )


def _keys_of_issuer(token: UnverifiedJwt, issuers: Mapping[str, IssuerKeys]) -> IssuerKeys:
    keys = issuers.get(token.claims.get("iss", ""))
    if keys is None:
        # The sender chooses the token's issuer: it is shown to the sender, but kept out of the message, which is logged.
        raise InvalidOidcToken(
            "wrong_issuer",
            f"The token must come from {' or '.join(issuers)}, which this provider trusts; if its issuer is right, "
            "ask the operator to add it to SENTRYAGENT_GITHUB_ISSUER.",
            {"issuer": _shortened(token.claims.get("iss")), "expectedIssuers": list(issuers)},
        )
    return keys


def _shortened(text: str | None) -> str | None:
    if text is None:
        return None
    shown = "".join(filter(str.isprintable, text))
    return shown if len(shown) <= _MAX_SHOWN_LENGTH else f"{shown[:_MAX_SHOWN_LENGTH]}…"


def _check_signature(token: UnverifiedJwt, key: RSAPublicKey) -> None:
    if not _RS256.verify(token.signing_input, key, token.signature):
        raise InvalidOidcToken(
            "bad_signature",
            "The token's signature is invalid; send GitHub's ID token exactly as it was issued.",
        )


def _check_presence(token: UnverifiedJwt) -> None:
    for name in _REQUIRED:
        value = token.claims.get(name)
        if value is None or (value == "" and name not in _MAY_BE_EMPTY):
            raise _missing_claim(name)


def _missing_claim(name: str) -> InvalidOidcToken:
    return InvalidOidcToken(
        "missing_claim",
        f"The token has no claim {name}; send an ID token that GitHub Actions issued to a job.",
    )


def _check_audience(token: UnverifiedJwt, audience: str) -> None:
    # One exact string: a list could also name another recipient, which could replay the token here (A2, A3).
    if token.claims["aud"] != audience:
        raise InvalidOidcToken(
            "wrong_audience",
            f"The token is not meant for this provider; request the ID token with audience {audience}.",
            {"expectedAudience": audience},
        )


def _check_times(token: UnverifiedJwt, now: int, max_age_seconds: int) -> None:
    exp, iat, nbf = (token.claims[name] for name in REQUIRED_TIMES)
    # A token must not be accepted "on or after" its exp (RFC 7519, 4.1.4).
    if now >= exp + CLOCK_LEEWAY_SECONDS:
        raise InvalidOidcToken("expired", "The token is expired; request a fresh ID token for each exchange.")
    if max(iat, nbf) > now + CLOCK_LEEWAY_SECONDS:
        raise InvalidOidcToken(
            "not_yet_valid",
            "The token is not valid yet; compare the clocks of this provider and of the issuer.",
        )
    if now - iat > max_age_seconds:
        raise InvalidOidcToken(
            "too_old",
            f"The token was issued more than {max_age_seconds} s ago; request a fresh ID token for each exchange.",
        )
