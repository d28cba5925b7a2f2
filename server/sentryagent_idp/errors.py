"""Every refusal of the provider: a stable code, a sentence that tells what to do, details for programs.

HTTP statuses are not here: `sentryagent_idp.api.problems` has the one table.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self


class AdminRefused(Exception):
    """The command line is asked for what cannot be done; the message is one line that says why and what to do."""


class ServiceError(Exception):
    """A refusal that a caller may see.

    `message` is safe to show and says what to do; `details` holds what `contract` promises for the code.
    """

    code: ClassVar[str]

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})

    def audit_details(self) -> dict[str, Any]:
        """What the audit keeps of it."""
        return dict(self.details)


class RetryableError(ServiceError):
    """A refusal that will pass; `retry_after` is in whole seconds (RFC 9110, 10.2.3)."""

    def __init__(self, message: str, *, retry_after: int, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details)
        self.retry_after = retry_after


class ValidationFailed(ServiceError):
    """The request is malformed: `field` names the member, `reason` what is wrong with it."""

    code = "VALIDATION_ERROR"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}", {"field": field, "reason": reason})


class Unauthorized(ServiceError):
    """No acceptable Bearer token came with the request (RFC 6750)."""

    code = "UNAUTHORIZED"


class Forbidden(ServiceError):
    """The caller is known and may not do this."""

    code = "FORBIDDEN"


class NotFound(ServiceError):
    """There is no such path."""

    code = "NOT_FOUND"


class MethodNotAllowed(ServiceError):
    """The path exists, the method does not."""

    code = "METHOD_NOT_ALLOWED"


class PreconditionFailed(ServiceError):
    """`If-Match` names another version than the stored one (RFC 9110, 13.1.1)."""

    code = "PRECONDITION_FAILED"


class RequestTimeout(ServiceError):
    """The request did not arrive in time (RFC 9110, 15.5.9)."""

    code = "REQUEST_TIMEOUT"


class PayloadTooLarge(ServiceError):
    """The body is larger than the provider reads."""

    code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(ServiceError):
    """The body has a content type that this endpoint does not take."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class RateLimited(RetryableError):
    """More requests in the window than one address or one repository may make."""

    code = "RATE_LIMITED"


class InternalError(ServiceError):
    """Our fault; the cause is in the log under the request id."""

    code = "INTERNAL_SERVER_ERROR"


class DatabaseUnavailable(RetryableError):
    """The database does not answer."""

    code = "SERVICE_UNAVAILABLE"


class IssuerUnavailable(RetryableError):
    """GitHub's signing keys cannot be fetched and none are held."""

    code = "ISSUER_UNAVAILABLE"


class InvalidClient(ServiceError):
    """The client's id or secret is wrong (RFC 6749, 5.2)."""

    code = "INVALID_CLIENT"


class UnsupportedGrantType(ServiceError):
    """The form asks for a grant that this endpoint does not give (RFC 6749, 5.2)."""

    code = "UNSUPPORTED_GRANT_TYPE"


class InvalidTarget(ServiceError):
    """The form's `resource` or `audience` is none of ours (RFC 8693, 2.2.2)."""

    code = "INVALID_TARGET"


class ExchangeRefused(ServiceError):
    """A 403 of the exchange; `brief` is all that is said where explanations are switched off.

    `reason` says why in words of the provider's own, `trace` has the policies that came nearest; both are for the
    audit only.
    """

    brief: ClassVar[str]
    reason: str
    trace: Sequence[Mapping[str, Any]] = ()

    def audit_details(self) -> dict[str, Any]:
        """The trace instead of what a caller is shown."""
        return {"trace": list(self.trace)}

    def without_explanation(self) -> Self:
        """The same refusal with a constant message and no details (federation-security R-EXP-1)."""
        plain = self.__class__.__new__(self.__class__)  # past its constructor, which may write an explanation
        ServiceError.__init__(plain, self.brief)
        return plain


class InvalidOidcToken(ServiceError):
    """The GitHub token is not acceptable; `reason` is one of the words of the contract's section 3."""

    code = "INVALID_OIDC_TOKEN"

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, {"reason": reason, **(details or {})})
        self.reason = reason


class IdentityChanged(ExchangeRefused):
    """The repository's name is known, but under other ids: it was deleted and made anew, or taken over."""

    code = "IDENTITY_CHANGED"
    reason = "identity_changed"
    brief = "This repository's name is known under other ids; an admin must review its trust policies."


class BranchNotPermitted(ExchangeRefused):
    """Only the branch or the tag stands between the run and a policy."""

    code = "BRANCH_NOT_PERMITTED"
    reason = "branch_not_permitted"
    brief = "Branch not permitted: no trust policy of this repository lets this branch or tag in."


class TrustPolicyViolation(ExchangeRefused):
    """No trust policy lets this run in."""

    code = "TRUST_POLICY_VIOLATION"
    reason = "trust_policy_violation"
    brief = "Trust policy violation: no trust policy of this repository lets this run in."


class AgentNotTrusted(TrustPolicyViolation):
    """The agent that was asked for is unknown or not active; a policy violation like any other in the JSON form."""


class ScopeNotPermitted(ExchangeRefused):
    """The policy matches, or the client is proven, but does not give a scope that was asked for."""

    code = "SCOPE_NOT_PERMITTED"
    reason = "scope_not_permitted"
    brief = "The trust policy does not give a scope that was asked for."

    def __init__(self, asked: str, permitted: Sequence[str], *, giver: str = "policy") -> None:
        super().__init__(
            f"The {giver} does not give the scope {asked}; ask for a part of: {' '.join(permitted)}.",
            {"permitted": list(permitted)},
        )


class TrustPolicyNotFound(ServiceError):
    """There is no trust policy with this id."""

    code = "TRUST_POLICY_NOT_FOUND"


class TrustPolicyAlreadyExists(ServiceError):
    """Another policy, `policyId` at `version`, has the same agent, repository and conditions."""

    code = "TRUST_POLICY_ALREADY_EXISTS"


class TrustPolicyDerived(ServiceError):
    """The policy follows its origin, `derivedFrom`, and is changed only through it."""

    code = "TRUST_POLICY_DERIVED"


class AgentNotFound(ServiceError):
    """There is no agent with this id that the caller may see."""

    code = "AGENT_NOT_FOUND"


class AgentAlreadyExists(ServiceError):
    """An agent has this e-mail address."""

    code = "AGENT_ALREADY_EXISTS"


class AgentDecommissioned(ServiceError):
    """The agent was decommissioned, which is final."""

    code = "AGENT_DECOMMISSIONED"


class CredentialNotFound(ServiceError):
    """The agent has no credential with this id."""

    code = "CREDENTIAL_NOT_FOUND"


class TooManyCredentials(ServiceError):
    """The agent has as many live credentials as an agent may have."""

    code = "TOO_MANY_CREDENTIALS"
