"""Every refusal of the provider: a stable code, its response, a message that says what to do, details for programs.

docs/errors.md lists them in a table; a test compares the two.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class ConfigurationError(Exception):
    """A setting is wrong; the message is one line that names the variable and what to write instead."""


class AdminRefused(Exception):
    """An admin command cannot be carried out; the message is one line that says why and what to do."""


_REASONS: Mapping[str, str] = {
    "missing": "it is missing",
    "bool_type": "it must be one of true, false",
    "int_type": "it must be a whole number",
    "string_type": "it must be a string",
    "list_type": "it must be an array",
    "tuple_type": "it must be an array",
    "dict_type": "it must be an object",
    "model_type": "it must be an object",
    "greater_than_equal": "it must be at least {ge}",
    "less_than_equal": "it must be at most {le}",
    "too_short": "it must not be empty",
    "string_too_short": "it must not be empty",
    "too_long": "it is too long; the maximum length is {max_length}",
    "string_too_long": "it is too long; the maximum length is {max_length}",
    "extra_forbidden": "unknown field; remove it",
}


def field_reason(error: Mapping[str, Any]) -> str:
    """Return why a value is refused, from an entry of pydantic's `ValidationError.errors()` with its context."""
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        # pydantic writes the words as 'a', 'b' or 'c'.
        return choice_reason(re.findall("'([^']*)'", context["expected"]))
    reason = _REASONS.get(error["type"])
    if reason is None:
        return str(error["msg"].removeprefix("Value error, "))
    return reason.format_map(context)


def choice_reason(words: Sequence[str]) -> str:
    """Return why a value other than `words` is refused."""
    return f"it must be {'one of ' if len(words) > 1 else ''}{', '.join(words)}"


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The response to an error: its status, and the error code and status that it has in OAuth's shape."""

    status: int
    oauth_error: str
    oauth_status: int


class ServiceError(Exception):
    """A refusal that a caller may see; its class declares code and response, and `oauth_status` defaults to `status`.

    `message` is safe to show and says what to do; `details` holds the fields that docs/errors.md lists for the code.
    """

    code: ClassVar[str] = ""
    response: ClassVar[ErrorResponse]
    declared: ClassVar[list[type["ServiceError"]]] = []
    """All refusals that have a response; other classes only group them."""

    def __init_subclass__(
        cls, code: str = "", status: int = 0, oauth_error: str = "invalid_request", oauth_status: int = 0
    ) -> None:
        cls.code = code or cls.code
        if status:
            cls.response = ErrorResponse(status, oauth_error, oauth_status or status)
            cls.declared.append(cls)

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})

    def audit_details(self) -> dict[str, Any]:
        """Return the details that the audit records."""
        return dict(self.details)


class RetryableError(ServiceError):
    """A temporary refusal; `retry_after` is in whole seconds (RFC 9110, 10.2.3)."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ValidationFailed(ServiceError, code="VALIDATION_ERROR", status=400):
    """The request is malformed: `field` names the field, `reason` says what is wrong with it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}", {"field": field, "reason": reason})


class Unauthorized(ServiceError, code="UNAUTHORIZED", status=401, oauth_error="invalid_token"):
    """No acceptable Bearer token came with the request (RFC 6750)."""


class Forbidden(ServiceError, code="FORBIDDEN", status=403, oauth_error="insufficient_scope"):
    """The caller is authenticated, but not allowed to do this."""


class NotFound(ServiceError, code="NOT_FOUND", status=404):
    """The path does not exist."""


class MethodNotAllowed(ServiceError, code="METHOD_NOT_ALLOWED", status=405):
    """The path exists, but does not support the method."""


class PreconditionFailed(ServiceError, code="PRECONDITION_FAILED", status=412):
    """`If-Match` does not have the stored version (RFC 9110, 13.1.1)."""


class RequestTimeout(ServiceError, code="REQUEST_TIMEOUT", status=408):
    """The request did not arrive in time (RFC 9110, 15.5.9)."""


class PayloadTooLarge(ServiceError, code="PAYLOAD_TOO_LARGE", status=413):
    """The body is larger than the limit."""


class UnsupportedMediaType(ServiceError, code="UNSUPPORTED_MEDIA_TYPE", status=415):
    """The body has a content type that this endpoint does not accept."""


class RateLimited(RetryableError, code="RATE_LIMITED", status=429, oauth_error="temporarily_unavailable"):
    """A rate limit is exceeded, for example that of an address or a repository."""


class InternalError(ServiceError, code="INTERNAL_SERVER_ERROR", status=500, oauth_error="server_error"):
    """A failure of the provider; the cause is in the log under the request id."""


class DatabaseUnavailable(
    RetryableError, code="SERVICE_UNAVAILABLE", status=503, oauth_error="temporarily_unavailable"
):
    """The database is unreachable or too busy."""


class IssuerUnavailable(
    RetryableError, code="ISSUER_UNAVAILABLE", status=503, oauth_error="temporarily_unavailable"
):
    """GitHub's signing keys cannot be fetched, and none are cached."""


class InvalidClient(ServiceError, code="INVALID_CLIENT", status=401, oauth_error="invalid_client"):
    """The client's id or secret is wrong (RFC 6749, 5.2)."""


class UnauthorizedClient(
    ServiceError, code="UNAUTHORIZED_CLIENT", status=400, oauth_error="unauthorized_client"
):
    """The client is authenticated, but may not use this grant (RFC 6749, 5.2)."""


class UnsupportedGrantType(
    ServiceError, code="UNSUPPORTED_GRANT_TYPE", status=400, oauth_error="unsupported_grant_type"
):
    """The form has a grant type that this endpoint does not support (RFC 6749, 5.2)."""


class InvalidTarget(ServiceError, code="INVALID_TARGET", status=400, oauth_error="invalid_target"):
    """The form's `resource` or `audience` is not a valid target (RFC 8693, 2.2.2)."""


class ExchangeRefused(ServiceError):
    """A 403 of the exchange; if explanations are off, `brief` is the whole message.

    `reason` is one of the provider's own words, and `trace` has the policies that came closest; both are only for the
    audit.
    """

    brief: ClassVar[str]
    reason: str
    trace: Sequence[Mapping[str, Any]] = ()

    def audit_details(self) -> dict[str, Any]:
        """Return the trace instead of the details that the caller sees."""
        return {"trace": list(self.trace)}

    def remove_explanation(self) -> None:
        """Leave only the constant `brief` message, without details."""
        self.message, self.details = self.brief, {}


class InvalidOidcToken(ServiceError, code="INVALID_OIDC_TOKEN", status=401, oauth_status=400):
    """The ID token is not acceptable; `reason` is one of `reasons`, which are in the order of the checks.

    `claims` are set only if the token's signature was verified, so that the audit can name the run.
    """

    reasons: ClassVar[Sequence[str]] = (
        "malformed",
        "wrong_type",
        "algorithm_not_allowed",
        "wrong_issuer",
        "unknown_key",
        "bad_signature",
        "missing_claim",
        "wrong_audience",
        "expired",
        "not_yet_valid",
        "too_old",
        "replayed",
    )

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, {"reason": reason, **(details or {})})
        self.reason = reason
        self.claims: Mapping[str, Any] | None = None


class IdentityChanged(ExchangeRefused, code="IDENTITY_CHANGED", status=403, oauth_status=400):
    """The repository's name is known, but under other ids: it was deleted and created again, or taken over."""

    reason = "identity_changed"
    brief = "The trust policies of this repository are pinned to other ids; an admin must review them."


class BranchNotPermitted(ExchangeRefused, code="BRANCH_NOT_PERMITTED", status=403, oauth_status=400):
    """A policy matches the run except for its branch or tag."""

    reason = "branch_not_permitted"
    brief = "Branch not permitted: no trust policy of this repository allows this branch or tag."


class TrustPolicyViolation(ExchangeRefused, code="TRUST_POLICY_VIOLATION", status=403, oauth_status=400):
    """No trust policy matches this run."""

    reason = "trust_policy_violation"
    brief = "Trust policy violation: no trust policy of this repository allows this run."


class AgentNotTrusted(TrustPolicyViolation, status=403, oauth_error="invalid_target", oauth_status=400):
    """The requested agent is unknown or not active; in the JSON form, a policy violation like any other."""


class ServiceNotPermitted(
    ExchangeRefused, code="SERVICE_NOT_PERMITTED", status=403, oauth_error="invalid_target", oauth_status=400
):
    """No trust policy grants the requested service, whether or not it exists."""

    reason = "service_not_permitted"
    brief = "No trust policy of this repository grants the agent this service."


class ScopeNotPermitted(
    ExchangeRefused, code="SCOPE_NOT_PERMITTED", status=403, oauth_error="invalid_scope", oauth_status=400
):
    """The matching policy, or the authenticated client, does not have a requested scope."""

    reason = "scope_not_permitted"
    brief = "The trust policy does not have a requested scope."

    def __init__(self, requested: str | None, permitted: Sequence[str], *, giver: str = "policy") -> None:
        message = (
            f"The {giver} does not have the scope {requested}; request a subset of: {' '.join(permitted)}."
        )
        if not permitted:
            message = f"The {giver} has no scopes for this API; set `resource` to a service that it grants."
        super().__init__(message, {"permitted": list(permitted)})


class TrustPolicyNotFound(ServiceError, code="TRUST_POLICY_NOT_FOUND", status=404):
    """There is no trust policy with this id."""


class TrustPolicyAlreadyExists(ServiceError, code="TRUST_POLICY_ALREADY_EXISTS", status=409):
    """Another policy, `policyId` at `version`, has the same agent, repository and conditions."""


class TrustPolicyDerived(ServiceError, code="TRUST_POLICY_DERIVED", status=409):
    """The policy is derived from `derivedFrom`, and is changed only through that policy."""


class ServiceNotFound(ServiceError, code="SERVICE_NOT_FOUND", status=404):
    """There is no service with this id."""


class ServiceAlreadyExists(ServiceError, code="SERVICE_ALREADY_EXISTS", status=409):
    """Another service, `serviceId`, has the identifier."""


class ServiceInUse(ServiceError, code="SERVICE_IN_USE", status=409):
    """Trust policies grant the service or one of its scopes, or clients are bound to it."""


class AgentNotFound(ServiceError, code="AGENT_NOT_FOUND", status=404):
    """There is no agent with this id that the caller may see."""


class AgentAlreadyExists(ServiceError, code="AGENT_ALREADY_EXISTS", status=409):
    """An agent has this e-mail address."""


class AgentDecommissioned(ServiceError, code="AGENT_DECOMMISSIONED", status=409):
    """The agent was decommissioned, which is final."""


class CredentialNotFound(ServiceError, code="CREDENTIAL_NOT_FOUND", status=404):
    """The agent has no credential with this id."""


class TooManyCredentials(ServiceError, code="TOO_MANY_CREDENTIALS", status=409):
    """The agent has reached the limit of live credentials."""
