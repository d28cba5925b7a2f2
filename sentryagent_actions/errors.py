"""What can go wrong in a step: one class for each remedy, each of which renders its own advice."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

_HOME = "https://github.com/sentryagent/toolkit"
_DOCUMENTATION = f"{_HOME}/blob/main"
# Which manual has a paragraph on which code; a test compares this with the manuals.
MANUALS: Mapping[str, frozenset[str]] = {
    "issue-token": frozenset(
        {
            "INVALID_INPUT",
            "ID_TOKEN_UNAVAILABLE",
            "PROVIDER_UNREACHABLE",
            "PROVIDER_TIMEOUT",
            "TLS_ERROR",
            "INVALID_RESPONSE",
            "INTERNAL_ERROR",
            "INVALID_OIDC_TOKEN",
            "TRUST_POLICY_VIOLATION",
            "BRANCH_NOT_PERMITTED",
            "IDENTITY_CHANGED",
            "SCOPE_NOT_PERMITTED",
            "VALIDATION_ERROR",
            "UNAUTHORIZED",
            "FORBIDDEN",
            "NOT_FOUND",
            "RATE_LIMITED",
            "ISSUER_UNAVAILABLE",
            "SERVICE_UNAVAILABLE",
            "INTERNAL_SERVER_ERROR",
        }
    ),
    "register-agent": frozenset({"AGENT_ALREADY_EXISTS", "AGENT_DECOMMISSIONED", "AGENT_NOT_FOUND"}),
}
_MAX_ANNOTATED_COMMAND = 1800  # the runner cuts an annotation at 4096 characters


class ActionError(Exception):
    """A step cannot do its work. `str()` is the cause, `remedy` what to do, `advice()` both and more.

    `retryable`: the same step may succeed later without any change. `retry_after`: seconds, where the other
    side named them. `retry_once`: worth exactly one delayed second try.
    """

    code: str = ""
    retryable: bool = False
    retry_once: bool = False

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        http_status: int | None = None,
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.http_status = http_status
        self.retry_after = retry_after
        self.request_id = request_id
        self.tries = 1

    @property
    def help_url(self) -> str:
        """The manual's paragraph on this code."""
        for manual, codes in MANUALS.items():
            if self.code in codes:
                return f"{_DOCUMENTATION}/{manual}/README.md#{self.code.lower()}"
        return f"{_DOCUMENTATION}/issue-token/README.md#troubleshooting"

    def advice(self) -> str:
        """Return cause and remedy as the annotation shows them; several lines."""
        tries = f"Gave up after {self.tries} tries." if self.tries > 1 else ""
        request = f"Request id: {self.request_id}" if self.request_id else ""
        return "\n".join(
            filter(None, (str(self), *self.remedies(), tries, request, f"Help: {self.help_url}"))
        )

    def remedies(self) -> tuple[str, ...]:
        """Return the lines that say what to do."""
        return (self.remedy,)

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return rows for the summary's table beyond code and message."""
        return ()

    def command(self) -> str:
        """Return a command that the summary offers to copy, or the empty string."""
        return ""


class InvalidInputError(ActionError):
    """An input of the step is missing or wrong: edit the workflow."""

    code = "INVALID_INPUT"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"Input `{name}` {problem}.")


class IdTokenPermissionError(ActionError):
    """The runner offers no ID tokens to this job: grant the permission, or know why there is none."""

    code = "ID_TOKEN_UNAVAILABLE"


class IdTokenEndpointError(ActionError):
    """GitHub's ID-token endpoint refused, or gave something that is no ID token for us."""

    code = "ID_TOKEN_UNAVAILABLE"


class IdTokenEndpointDownError(IdTokenEndpointError):
    """GitHub's ID-token endpoint cannot be reached or is overloaded: wait."""

    retryable = True


class ProviderUnreachableError(ActionError):
    """No connection to the provider, or only a gateway in front of it answers: check address, network, proxy."""

    code = "PROVIDER_UNREACHABLE"
    retryable = True


class ProxyRefusedError(ActionError):
    """The proxy on the way refused the connection (4xx): another try would be refused alike."""

    code = "PROVIDER_UNREACHABLE"


class ProviderTimeoutError(ActionError):
    """The provider takes connections and does not answer in time: wait, or raise `timeout`."""

    code = "PROVIDER_TIMEOUT"
    retryable = True


class TlsError(ActionError):
    """The other side's certificate is not trusted: give `ca-certificate`."""

    code = "TLS_ERROR"

    def __init__(self, who: str, cause: str) -> None:
        super().__init__(
            f"The certificate of {who} is not trusted: {cause}.",
            remedy="Give the root certificate of your network as input `ca-certificate`, or in a file in the "
            "workspace that SSL_CERT_FILE names.",
        )


class InvalidResponseError(ActionError):
    """What answered is not a SentryAgent provider: check `api-url`."""

    code = "INVALID_RESPONSE"


class InternalError(ActionError):
    """A fault of this action: report it. The fault's text could hold a credential, its place cannot."""

    code = "INTERNAL_ERROR"

    def __init__(self, fault: BaseException) -> None:
        super().__init__(
            f"This action has a fault: {type(fault).__name__} in {_place(fault)}.",
            remedy=f"Please report it: {_HOME}/issues",
        )


def _place(fault: BaseException) -> str:
    last = fault.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return "an unknown place"
    return f"{Path(last.tb_frame.f_code.co_filename).name}, line {last.tb_lineno}"


class RefusedError(ActionError):
    """The provider said no, in its own words: `code` is the provider's."""

    remedy_by_code: ClassVar[Mapping[str, str]] = {
        "FORBIDDEN": "Ask an admin of the provider which scopes the trust policy of this repository grants.",
        "AGENT_NOT_FOUND": "Check `agent-id`, and that this repository registered that agent.",
        "IDENTITY_CHANGED": "The repository was renamed, transferred or created anew under an old name. "
        "If that is right, an admin lifts the pin: PUT the trust policy with `repositoryId` and `repositoryOwnerId` null.",
    }

    def __init__(
        self,
        code: str,
        message: str,
        *,
        http_status: int,
        request_id: str = "",
        remedy: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            message,
            remedy=remedy or self.remedy_by_code.get(code, ""),
            http_status=http_status,
            request_id=request_id,
            retry_after=retry_after,
        )
        self.code = code


class ProviderOverloadedError(RefusedError):
    """The provider answered 408, 425, 429 or 5xx in its own words: wait."""

    retryable = True


class IdTokenRejectedError(RefusedError):
    """The provider does not accept the ID token (401): audience, issuer or clock are set up differently."""

    remedy_by_reason: ClassVar[Mapping[str, str]] = {
        "wrong_audience": "Leave `audience` empty, or set it to the value that the provider expects.",
        "wrong_issuer": "The provider trusts another GitHub; its SENTRYAGENT_GITHUB_ISSUER must be the issuer of this one.",
        "unknown_key": "The provider does not know GitHub's signing key; its way to GitHub's JWKS may be blocked.",
        "expired": "The clocks of GitHub and the provider differ, or the ID token was held up for minutes on its way.",
        "not_yet_valid": "The provider's clock is behind GitHub's by more than its leeway; have it synchronised.",
        "too_old": "The clocks of GitHub and the provider differ, or the ID token was held up for minutes on its way.",
        "replayed": "This ID token was used before; something between the runner and the provider repeats requests.",
    }

    def __init__(self, message: str, *, reason: str, http_status: int, request_id: str = "") -> None:
        super().__init__(
            "INVALID_OIDC_TOKEN",
            message,
            http_status=http_status,
            request_id=request_id,
            remedy=self.remedy_by_reason.get(reason, ""),
        )
        self.reason = reason
        self.retry_once = reason == "not_yet_valid"

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the reason."""
        return (("Reason", self.reason),)


@dataclass(frozen=True)
class UnmetCondition:
    """A condition of a trust policy that this run did not meet."""

    policy_id: str
    condition: str
    expected: str
    actual: str
    hint: str

    def __str__(self) -> str:
        text = f"{self.condition}: expected {self.expected}, actual {self.actual}."
        return f"{text} {self.hint}".rstrip()


@dataclass(frozen=True)
class Explanation:
    """Why no trust policy matched, in the provider's words, cleaned."""

    claims: tuple[tuple[str, str], ...] = ()
    unmet: tuple[UnmetCondition, ...] = ()
    suggested_policy: Mapping[str, object] | None = None


class PolicyRefusedError(RefusedError):
    """No trust policy allows this run (403): change the run or the policy."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        explanation: Explanation,
        policies_url: str,
        http_status: int,
        request_id: str = "",
    ) -> None:
        super().__init__(code, message, http_status=http_status, request_id=request_id)
        self.explanation = explanation
        self._policies_url = policies_url

    def suggest(self, **members: object) -> None:
        """Add to the policy that an admin is offered what this action needs in it beyond the run's claims."""
        policy = self.explanation.suggested_policy
        if policy is not None:
            self.explanation = replace(self.explanation, suggested_policy={**policy, **members})

    def remedies(self) -> tuple[str, ...]:
        """Return each unmet condition and the command that creates a matching policy."""
        unmet = (f"Policy {it.policy_id}, {it}" for it in self.explanation.unmet)
        return (*unmet, *super().remedies(), self._way_out())

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the claims that mattered and the conditions that they did not meet."""
        claims = tuple((f"Claim {name}", value) for name, value in self.explanation.claims)
        return (*claims, *((f"Policy {it.policy_id}", str(it)) for it in self.explanation.unmet))

    def command(self) -> str:
        """Return the call with which an admin allows this run."""
        policy = self.explanation.suggested_policy
        if policy is None:
            return ""
        # Quoted for the shell: the policy's text comes from outside, and is made to be pasted.
        return (
            f"curl -fsS -X POST {self._policies_url}"
            ' -H "Authorization: Bearer $SENTRYAGENT_ADMIN_TOKEN" -H "Content-Type: application/json"'
            f" --data {shlex.quote(json.dumps(policy))}"
        )

    def _way_out(self) -> str:
        command = self.command()
        if len(command) > _MAX_ANNOTATED_COMMAND:
            return (
                "If this run should be allowed, an admin can create the policy that the step summary shows."
            )
        if command:
            return f"If this run should be allowed, an admin can create this policy:\n{command}"
        if self.explanation.unmet or self.remedy:
            return ""
        return "Check that the agent exists and is active, and that a trust policy names this repository, this agent and this event."


class AgentExistsError(RefusedError):
    """The agent's name is taken (409); `agent_id` is empty where this repository may not see who has it."""

    remedy_by_code: ClassVar[Mapping[str, str]] = {
        "AGENT_ALREADY_EXISTS": "Another repository or an admin registered it: choose another `agent-name`, "
        "or ask an admin for a trust policy that links this repository with that agent, and use its id in issue-token."
    }

    def __init__(self, message: str, *, agent_id: str, http_status: int, request_id: str = "") -> None:
        super().__init__("AGENT_ALREADY_EXISTS", message, http_status=http_status, request_id=request_id)
        self.agent_id = agent_id


class AgentNotActiveError(RefusedError):
    """The agent is this repository's own, and not active: an admin decides."""

    def __init__(self, agent_id: str, status: str, found: AgentExistsError) -> None:
        remedy = (
            "It never comes back and keeps its name: choose another `agent-name`."
            if status == "decommissioned"
            else "An admin of the provider can make it active again (PATCH its `status`)."
        )
        super().__init__(
            found.code,
            f"The agent {agent_id} is {status}.",
            http_status=found.http_status or 0,
            request_id=found.request_id,
            remedy=remedy,
        )
