"""Who can make each hostile token, how severe its acceptance is, and what the verifier must do. Pure.

Sources: RFC 7515 (JWS), RFC 7518 (JWA), RFC 7519 (JWT), RFC 8259 (JSON), RFC 8725 (JWT Best Current Practices), OpenID
Connect Core 1.0, and GitHub's OpenID Connect reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ANYONE: Final = "anyone"
A_REPOSITORY: Final = "a repository"
GITHUB_ONLY: Final = "GitHub only"
MAKERS: Final = (ANYONE, A_REPOSITORY, GITHUB_ONLY)
HIGH: Final = "high"
MEDIUM: Final = "medium"
LOW: Final = "low"
SEVERITIES: Final = (HIGH, MEDIUM, LOW)


@dataclass(frozen=True)
class Risk:
    """The judgement of one row: `who` can make the token, `severity`, the `source` of the rule and the `remedy`.

    `anyone` needs no permissions on GitHub: a forger, the thief of a token, a service that the job logs in to. `a
    repository` is an attacker who runs a workflow on GitHub: in their own repository, or on another branch of this one.
    A `GitHub only` token needs GitHub's signature, and GitHub does not issue it: accepting it is a lack of defense in
    depth.
    """

    who: str
    severity: str
    source: str
    remedy: str


_Check = tuple[str, str]
_ALGORITHM: Final = "RFC 8725 3.1", "Allow only RS256, and never let the header choose."
_SIGNATURE: Final = "RFC 7515 5.2", "Verify the signature over the exact bytes before you read a claim."
_KEY_ID: Final = "RFC 7515 4.1.4", "Look the kid up in the issuer's key set; use that key or none."
_INJECTION: Final = (
    "RFC 8725 3.10",
    "Use the kid only to look up a key: never as a path, in SQL or as a secret.",
)
_OWN_KEY: Final = (
    "RFC 8725 3.10",
    "Ignore `jwk`, `jku`, `x5c` and `x5u`, or refuse them: keys come only from the issuer.",
)
_TYPE: Final = "RFC 8725 3.11", "Accept `typ` JWT or none, so that no other kind of token passes."
_CRITICAL: Final = (
    "RFC 7515 4.1.11",
    "Refuse a header with `crit`, unless you implement each extension that it names.",
)
_UNENCODED: Final = "RFC 7797", "Refuse `b64`: a JWT never has it."
_ENCRYPTED: Final = "RFC 7516 4.1", "Refuse `zip` and `enc`, which belong to encrypted tokens."
_UNIQUE_HEADER: Final = "RFC 7515 4", "Refuse a header that has duplicate names or is not an object."
_UNIQUE_CLAIMS: Final = (
    "RFC 7519 4",
    "Refuse claims with duplicate names: parsers disagree on which one counts.",
)
_OBJECT: Final = "RFC 7519 7.2", "Refuse claims that are not one JSON object in UTF-8."
_LIMITS: Final = (
    "RFC 8259 9",
    "Limit the size of a token (16 KiB) and the depth of its JSON before you parse it.",
)
_COMPACT: Final = (
    "RFC 7515 7.1",
    "Accept three parts of base64url without padding or spaces, and nothing else.",
)
_SPELLING: Final = (
    "RFC 7515 2",
    "Refuse every spelling but the canonical one, or remember `jti` instead of token texts.",
)
_SIGNATURE_LENGTH: Final = "RFC 8017 8.2.2", "Refuse a signature whose length is not that of the modulus."
_EXPIRY: Final = (
    "RFC 7519 4.1.4",
    "Require `exp`, and refuse the token from then on, with a leeway of a minute at most.",
)
_NOT_BEFORE: Final = "RFC 7519 4.1.5", "Require `nbf`, and refuse the token before it."
_ISSUED_AT: Final = "RFC 7519 4.1.6", "Require `iat`; refuse one in the future or older than ten minutes."
_NUMERIC_DATE: Final = "RFC 7519 2", "Accept only a whole number: GitHub sends nothing else."
_ISSUER: Final = (
    "RFC 8725 3.8",
    "Require `iss`, and compare the whole string with the one issuer that you trust.",
)
_AUDIENCE: Final = (
    "RFC 8725 3.9",
    "Require one `aud`, and compare the whole string with a value that is yours alone.",
)
_SUBJECT: Final = "RFC 7519 4.1.2", "Require `sub` as a string."
_JTI: Final = (
    "RFC 7519 4.1.7",
    "Require `jti`, and refuse one that was used before, until the token has expired.",
)
_NAMES: Final = (
    "GitHub OIDC reference",
    "Compare `repository` and `ref` as whole strings; no prefix, no pattern.",
)
_IDS: Final = (
    "GitHub OIDC reference",
    "Compare `repository_id` and `repository_owner_id`: names can be taken over.",
)
_EVENT: Final = (
    "GitHub OIDC reference",
    "List the events that may log in: anyone can open pull requests and write comments.",
)
_ENVIRONMENT: Final = (
    "GitHub OIDC reference",
    "Compare `environment` as a whole string, and refuse a token without it.",
)
_WORKFLOW: Final = (
    "GitHub OIDC reference",
    "Compare all of `job_workflow_ref`: owner, repository, path and the ref behind the @.",
)
_RUNNER: Final = (
    "GitHub OIDC reference",
    "Compare `runner_environment`: a self-hosted runner is its owner's machine.",
)
_VISIBILITY: Final = "GitHub OIDC reference", "Compare `repository_visibility`."
_FETCHES: Final = (
    "OpenID Connect Core 10.1.1",
    "For unknown kids, fetch the key set at most once in 30 s, counting failed fetches, and cache it for minutes.",
)
_FAIL_CLOSED: Final = (
    "RFC 8725 3.3",
    "Refuse every token for which there is no key, even if the keys cannot be fetched.",
)

_TABLE: Final[tuple[tuple[str, str, _Check, str], ...]] = (
    (ANYONE, HIGH, _EXPIRY, "expired"),
    (ANYONE, MEDIUM, _EXPIRY, "leeway-of-expiry"),
    (GITHUB_ONLY, MEDIUM, _EXPIRY, "missing-exp"),
    (GITHUB_ONLY, LOW, _NOT_BEFORE, "not-yet-valid missing-nbf leeway-of-not-before"),
    (GITHUB_ONLY, LOW, _ISSUED_AT, "too-old missing-iat future-iat ancient-iat leeway-of-issued-at"),
    (GITHUB_ONLY, MEDIUM, _NUMERIC_DATE, "nan-expiry infinite-expiry"),
    (GITHUB_ONLY, LOW, _NUMERIC_DATE, "text-times float-times boolean-times null-expiry array-expiry"),
    # An enterprise chooses its slug, and GitHub signs for it with the same keys.
    (A_REPOSITORY, HIGH, _ISSUER, "issuer-with-slug"),
    (GITHUB_ONLY, MEDIUM, _ISSUER, "wrong-issuer missing-issuer issuer-as-prefix"),
    (GITHUB_ONLY, LOW, _ISSUER, "issuer-with-slash issuer-in-capitals issuer-array"),
    # The operator of another service receives such a token from every job that logs in there.
    (ANYONE, HIGH, _AUDIENCE, "wrong-audience audience-as-prefix"),
    (A_REPOSITORY, LOW, _AUDIENCE, "audience-with-slash audience-in-capitals"),
    (GITHUB_ONLY, MEDIUM, _AUDIENCE, "missing-audience audience-empty audience-empty-array"),
    (GITHUB_ONLY, LOW, _AUDIENCE, "audience-array"),
    (GITHUB_ONLY, LOW, _SUBJECT, "missing-subject subject-array"),
    (ANYONE, MEDIUM, _JTI, "replay"),
    (GITHUB_ONLY, LOW, _JTI, "missing-jti"),
    (GITHUB_ONLY, LOW, _NAMES, "missing-repository repository-array repository-homoglyph"),
    (GITHUB_ONLY, LOW, _IDS, "missing-repository-id"),
    (A_REPOSITORY, HIGH, _NAMES, "look-alike-repository look-alike-owner namesake namesake-in-other-sub-form"),
    (A_REPOSITORY, HIGH, _IDS, "recycled-name recycled-name-in-other-sub-form"),
    (A_REPOSITORY, HIGH, _NAMES, "other-branch look-alike-branch tag-named-as-branch"),
    (A_REPOSITORY, HIGH, _EVENT, "pull-request pull-request-target workflow-run issue-comment"),
    (A_REPOSITORY, HIGH, _ENVIRONMENT, "no-environment other-environment"),
    (A_REPOSITORY, HIGH, _WORKFLOW, "other-workflow look-alike-workflow workflow-of-another-repository"),
    (A_REPOSITORY, MEDIUM, _WORKFLOW, "workflow-on-another-ref"),
    (A_REPOSITORY, MEDIUM, _RUNNER, "other-runner"),
    (A_REPOSITORY, MEDIUM, _VISIBILITY, "other-visibility"),
    (ANYONE, HIGH, _ALGORITHM, "alg-none alg-none-capital alg-none-upper alg-none-mixed alg-none-blank alg-empty"),
    (ANYONE, HIGH, _ALGORITHM, "es256-zeros hs256-with-public-key hs256-with-der hs256-with-jwk"),
    (ANYONE, HIGH, _ALGORITHM, "hs256-with-certificate hs256-with-kid hs256-with-nothing"),
    (GITHUB_ONLY, LOW, _ALGORITHM, "alg-none-signed alg-missing alg-array alg-lower-case alg-ps256 alg-rs512-label"),
    (ANYONE, HIGH, _KEY_ID, "foreign-key foreign-kid"),
    (GITHUB_ONLY, LOW, _KEY_ID, "unknown-kid missing-kid other-published-kid signed-by-idle-key"),
    (GITHUB_ONLY, LOW, _KEY_ID, "kid-number kid-null kid-long"),
    (ANYONE, HIGH, _INJECTION, "kid-path kid-sql"),
    (ANYONE, HIGH, _OWN_KEY, "own-jwk own-jku own-x5u own-x5c own-url-followed"),
    (GITHUB_ONLY, LOW, _OWN_KEY, "embedded-jwk jku-header"),
    (GITHUB_ONLY, LOW, _TYPE, "wrong-type"),
    (GITHUB_ONLY, LOW, _CRITICAL, "crit-header crit-empty crit-unencoded"),
    (GITHUB_ONLY, LOW, _UNENCODED, "b64-without-crit"),
    (GITHUB_ONLY, LOW, _ENCRYPTED, "zip-header enc-header"),
    (ANYONE, HIGH, _UNIQUE_HEADER, "duplicate-header-member"),
    (GITHUB_ONLY, LOW, _UNIQUE_HEADER, "header-array"),
    (ANYONE, HIGH, _SIGNATURE, "bad-signature empty-signature signature-of-another two-parts"),
    (ANYONE, MEDIUM, _SIGNATURE_LENGTH, "signature-short"),
    (ANYONE, LOW, _SIGNATURE_LENGTH, "signature-long"),
    # Other spellings of a token that the sender holds: they only bypass a list of used token texts.
    (ANYONE, LOW, _SPELLING, "signature-malleable padded standard-base64 line-break blank-inside"),
    (ANYONE, LOW, _COMPACT, "four-parts five-parts flattened"),
    (ANYONE, MEDIUM, _LIMITS, "deep-json-forged"),
    (GITHUB_ONLY, LOW, _LIMITS, "oversize deep-json"),
    (GITHUB_ONLY, LOW, _UNIQUE_CLAIMS, "duplicate-member duplicate-subject duplicate-audience"),
    (GITHUB_ONLY, LOW, _OBJECT, "payload-array payload-empty payload-invalid-utf8 payload-trailing"),
    (ANYONE, MEDIUM, _FETCHES, "fetch-for-each-token fetch-for-each-unknown-kid"),
    (ANYONE, HIGH, _FAIL_CLOSED, "keys-answer-503 keys-reset keys-garbage keys-empty"),
)  # fmt: skip

RISKS: Final[Mapping[str, Risk]] = {
    name: Risk(who, severity, *check) for who, severity, check, names in _TABLE for name in names.split()
}
