"""The claims of a job's ID token: custom claims, both forms of `sub`, audiences. Pure, without clock or keys.

Source: GitHub's OIDC reference ("OpenID Connect reference", "Immutable subject claims") and published tokens. Every
custom claim is a string, including ids, numbers and booleans.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mock_idp.job import CLAIMS_SUPPORTED, stable_id
from mock_idp.strict_fields import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mock_idp.job import Job

TOKEN_LIFETIME_SECONDS: Final = 300
NOT_BEFORE_SKEW_SECONDS: Final = 300
GHES_ISSUER_PATH: Final = "/_services/token"
_PATH: Final = r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*"


def discovery_document(issuer: str) -> dict[str, Any]:
    """Return the discovery document, fields in GitHub's order; it has no authorization or token endpoint."""
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks",
        "subject_types_supported": ["public", "pairwise"],
        "response_types_supported": ["id_token"],
        "claims_supported": list(CLAIMS_SUPPORTED),
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid"],
    }


def require_issuer(issuer: str) -> None:
    """Raise InvalidFieldError for an `iss` that a verifier could not look up, or that would never match.

    A path is compared after clients and servers have normalised it, so escapes, empty segments and dot segments are
    refused.
    """
    parts = urlsplit(issuer)
    is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
    where = parts.path if is_url else issuer
    if (
        not (is_url or issuer.startswith("/"))
        or not re.fullmatch(_PATH, where)
        or parts.query
        or parts.fragment
    ):
        raise InvalidFieldError(
            "issuer",
            "must be an http(s) URL, or a path such as /my-enterprise, without a trailing slash, query, fragment, "
            "escapes or dot segments",
        )


def server_url(issuer: str) -> str:
    """Return the GitHub server of an issuer: github.com, a GHE.com tenant or a GHES host."""
    parts = urlsplit(issuer)
    if parts.path == GHES_ISSUER_PATH:
        return f"{parts.scheme}://{parts.netloc}"
    tenant = re.fullmatch(r"token\.actions\.([a-z0-9-]+\.ghe\.com)", parts.hostname or "")
    return f"https://{tenant[1]}" if tenant else "https://github.com"


def enterprise_of(issuer: str) -> str:
    """Return the slug of an enterprise that has its own issuer, `…/SLUG`; empty for every other issuer."""
    path = urlsplit(issuer).path
    slug = re.fullmatch(r"/([A-Za-z0-9-]+)", path)
    return slug[1] if slug else ""


def refuse_impossible(job: Job, issuer: str) -> None:
    """Raise InvalidFieldError for an option that this issuer's kind of GitHub does not have."""
    if job.immutable_sub and urlsplit(issuer).path == GHES_ISSUER_PATH:
        raise InvalidFieldError("immutableSub", "is not available on GHES, whose `sub` has no ids")


def environment_node_id(job: Job) -> str:
    """Return the environment's GraphQL id, in GitHub's newer node id format.

    `EN_` and base64url of a MessagePack array: 0, the repository's id, the environment's id. Observed in tokens.
    """
    name = f"{job.repository}/{job.environment}"
    environment_id = (1 << 32) + int(stable_id(name))
    packed = b"\x93\x00" + b"".join(_packed(number) for number in (int(job.repository_id), environment_id))
    return f"EN_{base64.urlsafe_b64encode(packed).rstrip(b'=').decode()}"


def _packed(number: int) -> bytes:
    """Encode an id as MessagePack's uint 32 or uint 64."""
    return b"\xce" + number.to_bytes(4, "big") if number < 1 << 32 else b"\xcf" + number.to_bytes(8, "big")


def default_audience(job: Job, issuer: str) -> str:
    """Return the `aud` of a token requested without an audience: the owner's page on the issuer's server."""
    return f"{server_url(issuer)}/{job.owner}"


def is_audience_issuable(audience: str, job: Job) -> bool:
    """Return whether GitHub issues a token for this audience.

    GitHub's rule: the text after the first "github.com" must be empty or name this owner or repository. It compares
    substrings, not URLs: `https://notgithub.com/OWNER` is issued, `https://github.com.example` is not. An audience
    without "github.com" is always issued.
    """
    _, found, rest = audience.lower().partition("github.com")
    owner, repository = f"/{job.owner.lower()}", f"/{job.repository.lower()}"
    return not found or rest in {"", "/", owner, f"{owner}/", repository} or rest.startswith(f"{repository}/")


def escaped(value: str) -> str:
    """Escape a value for `sub`, so that a colon in it cannot be mistaken for a separator."""
    return value.replace(":", "%3A")


def subject(job: Job, claims: Mapping[str, str]) -> str:
    """Return the `sub` of a job: by the default template, or by the job's `include_claim_keys`.

    Documented: environment takes precedence, `pull_request`, `ref`, the templates, `%3A`, the form with ids. Inferred:
    every other event, such as merge_group, schedule or pull_request_target, has its `ref`.
    """
    if not job.include_claim_keys:
        return f"repo:{_repository_segment(job)}:{_context_segment(job)}"
    return ":".join(_template_segment(job, claims, key) for key in job.include_claim_keys)


def _template_segment(job: Job, claims: Mapping[str, str], key: str) -> str:
    if key == "repo":
        return f"repo:{_repository_segment(job)}"
    if key == "context":
        return _context_segment(job)
    return f"{key}:{escaped(claims.get(key, ''))}"


def _repository_segment(job: Job) -> str:
    if not job.immutable_sub:
        return job.repository
    return f"{job.owner}@{job.repository_owner_id}/{job.name}@{job.repository_id}"


def _context_segment(job: Job) -> str:
    if job.environment:
        return f"environment:{escaped(job.environment)}"
    return "pull_request" if job.event == "pull_request" else f"ref:{escaped(job.ref)}"


def job_claims(job: Job, issuer: str = "") -> dict[str, str]:
    """Return the claims of a job that do not depend on the request: all of GitHub's except iss, aud, jti and times.

    A job of an enterprise's own issuer belongs to that enterprise. Raises InvalidFieldError for an option that this
    issuer's kind of GitHub does not have.
    """
    refuse_impossible(job, issuer)
    claims = {
        "actor": job.actor,
        "actor_id": job.actor_id,
        "base_ref": job.base_ref,
        "check_run_id": job.check_run_id,
        "event_name": job.event,
        "head_ref": job.head_ref,
        "job_workflow_ref": job.called_workflow or job.workflow_ref,
        "job_workflow_sha": job.called_workflow_sha,
        "ref": job.ref,
        "ref_protected": str(job.ref_protected).lower(),
        "ref_type": job.ref_type,
        "repository": job.repository,
        "repository_id": job.repository_id,
        "repository_owner": job.owner,
        "repository_owner_id": job.repository_owner_id,
        "repository_visibility": job.visibility,
        "run_attempt": job.run_attempt,
        "run_id": job.run_id,
        "run_number": job.run_number,
        "runner_environment": job.runner_environment,
        "sha": job.sha,
        "workflow": job.workflow_name,
        "workflow_ref": job.workflow_ref,
        "workflow_sha": job.sha,
        **_conditional_claims(job, issuer),
    }
    return claims | {"sub": subject(job, claims)}


def _conditional_claims(job: Job, issuer: str) -> dict[str, str]:
    claims = {f"repo_property_{name}": value for name, value in job.repository_properties.items()}
    if job.environment:
        claims |= {"environment": job.environment, "environment_node_id": environment_node_id(job)}
    if enterprise := job.enterprise or enterprise_of(issuer):
        claims |= {"enterprise": enterprise, "enterprise_id": job.enterprise_id or stable_id(enterprise)}
    return claims


def id_token_claims(job: Job, *, issuer: str, audience: str | None, now: int, jti: str) -> dict[str, Any]:
    """Return the payload of an ID token, at `now` in seconds since the epoch; an empty audience means the default."""
    return {
        **job_claims(job, issuer),
        "iss": issuer,
        "aud": audience or default_audience(job, issuer),
        "jti": jti,
        "iat": now,
        "nbf": now - NOT_BEFORE_SKEW_SECONDS,
        "exp": now + TOKEN_LIFETIME_SECONDS,
    }
