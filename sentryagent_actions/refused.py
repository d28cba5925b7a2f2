"""The provider's refusals: `reported_by` is the provider's URL, `code` its error code."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sentryagent_actions.errors import ActionError
from sentryagent_actions.origin import Origin

_MAX_ANNOTATED_COMMAND = 1800  # the runner cuts an annotation at 4096 characters
_MAX_ANNOTATED_CONDITIONS = 3
_ABSENT = "absent"
_ISSUER = re.compile(r"https?://[A-Za-z0-9.:/_~\[\]-]{1,100}")
# Conditions on the run's ref. They are shown first, because the others matter only once a policy covers the ref.
_OF_REF = ("ref", "branch", "tag")


@dataclass(frozen=True)
class Refusal:
    """A refusal as received from the provider at `api_url`; `details` are not validated."""

    api_url: Origin
    code: str
    message: str
    details: Mapping[str, object]
    status: int
    request_id: str = ""
    retry_after: float | None = None


class RefusedError(ActionError):
    """The provider refused the request."""

    remedies: ClassVar[Mapping[str, str]] = {
        "UNAUTHORIZED": "Run the job again: the provider's own token was revoked or has expired in the meantime.",
        "FORBIDDEN": "Ask an admin of the provider which scopes the trust policy of this repository grants.",
        "NOT_FOUND": "Check `api-url`; if it is correct, the provider is older than this action.",
        "AGENT_NOT_FOUND": "Check `agent-id`, and that this repository registered that agent.",
        "AGENT_DECOMMISSIONED": "A decommissioned agent cannot be restored and keeps its name: choose another `agent-name`.",
        "RATE_LIMITED": "Start fewer jobs at once, or raise `timeout`.",
        "ISSUER_UNAVAILABLE": "The provider's operator must let the provider fetch GitHub's signing keys (see its /ready).",
        "SERVICE_UNAVAILABLE": "Run the job again later.",
        "INTERNAL_SERVER_ERROR": "Give the request id to the provider's operator.",
    }

    def __init__(self, refusal: Refusal, cause: str = "", remedy: str = "", paste: str = "") -> None:
        super().__init__(
            cause or refusal.message,
            remedy=remedy
            or self.remedies.get(refusal.code, "Give the request id to the provider's operator."),
            paste=paste,
            http_status=refusal.status,
            retry_after=refusal.retry_after,
            request_id=refusal.request_id,
        )
        self.code = refusal.code
        self.reported_by = str(refusal.api_url)


class ProviderOverloadedError(RefusedError):
    """The provider responded with 408, 425, 429 or 5xx in its own format: try again later."""

    retryable = True


class IdTokenRejectedError(RefusedError):
    """The provider rejected the ID token (401), for example because of its audience, its issuer or a wrong clock."""

    remedies_by_reason: ClassVar[Mapping[str, str]] = {
        "wrong_audience": "Set the input `audience` to the value that the provider expects:",
        "wrong_issuer": "The provider's operator must add this GitHub to SENTRYAGENT_GITHUB_ISSUER.",
        "unknown_key": "The provider's operator must let the provider fetch GitHub's signing keys (see its /ready).",
        "expired": "The provider's operator must synchronise the provider's clock, which differs from GitHub's.",
        "not_yet_valid": "The provider's operator must synchronise the provider's clock, which is behind GitHub's.",
        "too_old": "The provider's operator must synchronise the provider's clock, which differs from GitHub's.",
        "replayed": "Look for a proxy between the runner and the provider that sends requests twice.",
        "malformed": "Look for a proxy between the runner and the provider that changes requests.",
        "bad_signature": "Look for a proxy between the runner and the provider that changes requests.",
    }
    # Seconds. A clock that is slightly behind catches up. A provider fetches GitHub's keys at most once in 30 s, so that
    # nobody can make it flood GitHub; it knows a newly published key after 35 s.
    _retries_once_after: ClassVar[Mapping[str, float]] = {"not_yet_valid": 1.0, "unknown_key": 35.0}
    _claims_by_reason: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "wrong_audience": ("aud",),
        "wrong_issuer": ("iss",),
        "unknown_key": ("iss",),
        "expired": ("iat", "exp"),
        "not_yet_valid": ("iat", "nbf"),
        "too_old": ("iat", "exp"),
        "replayed": ("jti",),
    }

    def __init__(self, refusal: Refusal, *, reason: str, cause: str, expected: str = "") -> None:
        super().__init__(refusal, cause, self.remedies_by_reason.get(reason, ""))
        self.reason = reason
        self.retry_once_after = self._retries_once_after.get(reason, 0.0)
        self._expected = expected
        self._trusted: Sequence[object] = ()
        self._claims: Mapping[str, str] = {}
        if expected:
            self.paste = f"audience: {expected}"

    def add_claims(self, claims: Mapping[str, str], *, audience_given: bool) -> None:
        """Add the claims of the ID token that this action sent."""
        self._claims = claims
        if self.reason == "wrong_issuer" and claims.get("iss"):
            self.add_issuers(claims["iss"], self._trusted)
        if self.reason == "wrong_audience" and self._expected and not audience_given:
            # The audience was derived from `api-url`, so `api-url` is wrong.
            self.remedy = f"Set `api-url` to {self._expected}. If the provider must be reached at {self.reported_by}, set this instead:"

    def add_issuers(self, issuer: object, trusted: Sequence[object]) -> None:
        """Add the token's issuer and the trusted issuers, as a setting for the provider's operator to paste.

        Only plain URLs are included, because the text is untrusted and is pasted into a shell or a unit file.
        """
        self._trusted = trusted
        if not isinstance(issuer, str) or not _ISSUER.fullmatch(issuer):
            return
        self.remedy = f"The provider's operator must add {issuer} to SENTRYAGENT_GITHUB_ISSUER."
        if trusted and all(isinstance(it, str) and _ISSUER.fullmatch(it) for it in trusted):
            setting = f"SENTRYAGENT_GITHUB_ISSUER={','.join(map(str, (*trusted, issuer)))}"
            if len(setting) <= _MAX_ANNOTATED_COMMAND:
                self.remedy, self.paste = f"{self.remedy.rstrip('.')}:", setting

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the reason, the claims that it concerns, and then the other claims."""
        first = self._claims_by_reason.get(self.reason, ())
        names = (*first, *(name for name in self._claims if name not in first))
        claims = ((f"Claim {name}", self._claims[name]) for name in names if name in self._claims)
        return (("Reason", self.reason), *claims)


@dataclass(frozen=True)
class UnmetCondition:
    """A condition of a trust policy that this run did not meet."""

    policy_id: str
    condition: str
    expected: str
    actual: str
    hint: str

    def __str__(self) -> str:
        if self.condition == "agentId" and self.expected == _ABSENT:
            return f"this policy only allows registering agents; the run asks for agent {self.actual}."
        if self.condition == "agentId" and self.actual == _ABSENT:
            return f"this policy is for agent {self.expected}; the run asks to register one."
        if self.condition == "agentId":
            return f"this policy is for agent {self.expected}; the run asks for agent {self.actual}."
        return f"{self.brief}. {self.hint}".rstrip()

    @property
    def brief(self) -> str:
        """The condition with expected and actual value, without its hint."""
        return f"{self.condition}: expected {self.expected}, actual {self.actual}"


@dataclass(frozen=True)
class Explanation:
    """The provider's explanation of why no trust policy matched, sanitised; the nearest policy comes first."""

    claims: tuple[tuple[str, str], ...] = ()
    unmet: tuple[UnmetCondition, ...] = ()
    suggested_policy: Mapping[str, object] | None = None

    def nearest(self) -> tuple[UnmetCondition, ...]:
        """Return the unmet conditions of the nearest policy for the same agent, those on the ref first."""
        others = {it.policy_id for it in self.unmet if it.condition == "agentId"}
        own = [it for it in self.unmet if it.policy_id not in others]
        nearest = [it for it in own if it.policy_id == own[0].policy_id]
        return tuple(sorted(nearest, key=lambda it: it.condition not in _OF_REF))

    def claim(self, name: str) -> str:
        """Return one of the claims that the policies test, or the empty string."""
        value = dict(self.claims).get(name, "")
        return "" if value == _ABSENT else value


class PolicyRefusedError(RefusedError):
    """No trust policy allows this run (403): change the run or the policy."""

    def __init__(self, refusal: Refusal, *, cause: str, explanation: Explanation) -> None:
        if refusal.code == "IDENTITY_CHANGED":
            cause = "The trust policies for this repository name are pinned to GitHub ids that this repository does not have"
        super().__init__(refusal, f"{cause.rstrip('.')}{_differences(explanation)}.")
        self._is_explained = bool(explanation.claims or explanation.unmet)
        self._set_explanation(explanation)

    def suggest(self, **fields: object) -> None:
        """Add fields that this action needs to the suggested policy, which the provider derives from the run's claims."""
        policy = self.explanation.suggested_policy
        if policy is not None:
            self._set_explanation(replace(self.explanation, suggested_policy={**policy, **fields}))

    def suggest_grant(self, service: str, scopes: Sequence[str]) -> None:
        """Add a grant to the suggested policy, unless it already grants the service."""
        policy = self.explanation.suggested_policy or {}
        written = policy.get("grants")
        grants = list(written) if isinstance(written, list) else []
        if not any(isinstance(grant, dict) and grant.get("service") == service for grant in grants):
            self.suggest(grants=[*grants, {"service": service, "scopes": list(scopes)}])

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the claims that the policies test and the conditions that they did not meet."""
        claims = tuple((f"Claim {name}", value) for name, value in self.explanation.claims)
        return (*claims, *((f"Policy {it.policy_id}", str(it)) for it in self.explanation.unmet))

    def to_paste(self) -> str:
        """Return the command, even if it is too long for an annotation."""
        return self.command()

    def command(self) -> str:
        """Return the `curl` command with which an admin allows this run, or the empty string without a suggested policy."""
        policy = self.explanation.suggested_policy
        if policy is None:
            return ""
        # Quoted for the shell: the policy's text is untrusted and meant to be pasted.
        return (
            f"curl --fail-with-body -sS -X POST {self.reported_by}/api/v1/oidc/trust-policies"
            ' -H "Authorization: Bearer $SENTRYAGENT_ADMIN_TOKEN" -H "Content-Type: application/json"'
            f" --data {shlex.quote(json.dumps(policy))}"
        )

    def _set_explanation(self, explanation: Explanation) -> None:
        self.explanation = explanation
        command = self.command()
        self.remedy, self.paste = self._remedy(), ""
        if len(command) > _MAX_ANNOTATED_COMMAND:
            self.remedy += " The command is in the step summary."
        elif command:
            self.paste = command

    def _remedy(self) -> str:
        if self.code == "IDENTITY_CHANGED":
            return _LIFT_THE_PIN
        nearest, ref = self.explanation.nearest(), self.explanation.claim("ref")
        if self.explanation.suggested_policy is not None and (nearest or not self.explanation.unmet):
            return _allow_remedy(nearest, ref)
        if self.explanation.suggested_policy is not None:
            return "If this run should be allowed, ask an admin to create this policy:"
        if ref.startswith("refs/pull/"):
            return _SKIP_PULL_REQUESTS
        hints = [it.hint for it in sorted(nearest, key=lambda it: it.actual != _ABSENT) if it.hint]
        if hints:
            return hints[0]
        return _CHECK_THE_AGENT if self._is_explained else _ASK_FOR_THE_CAUSE


_LIFT_THE_PIN = (
    "If the repository was renamed, transferred or created again on purpose, ask an admin to remove the pin: "
    "PUT the trust policy with `repositoryId` and `repositoryOwnerId` set to null."
)
_SKIP_PULL_REQUESTS = (
    "Policies with `branch` or `tag` never cover pull requests. Skip this step for them "
    "(`if: github.event_name != 'pull_request'`), or ask an admin for a policy that has neither and lists pull_request "
    "in `events`; that is safe only if the workflow runs none of the pull request's code."
)
_CHECK_THE_AGENT = "Check `agent-id`, and ask an admin of the provider whether that agent is active."
_ASK_FOR_THE_CAUSE = (
    "Ask an admin of the provider for the cause: the audit log records it under the request id."
)


def _differences(explanation: Explanation) -> str:
    failures = [it.brief for it in explanation.nearest()]
    if not failures and explanation.unmet and explanation.suggested_policy:
        is_for_agent = "agentId" in explanation.suggested_policy
        others = (
            "other agents, or for registering one" if is_for_agent else "agents, and none for registering one"
        )
        return f" (the repository's policies are for {others})"
    more = f"; {len(failures) - _MAX_ANNOTATED_CONDITIONS} more in the summary"
    shown = "; ".join(failures[:_MAX_ANNOTATED_CONDITIONS])
    return f" ({shown}{more if len(failures) > _MAX_ANNOTATED_CONDITIONS else ''})" if failures else ""


def _allow_remedy(nearest: tuple[UnmetCondition, ...], ref: str) -> str:
    """Return the remedy for a run that a new policy would allow; the command follows it."""
    if ref.startswith("refs/tags/"):
        return "To allow this tag, ask an admin to create this policy; with a pattern such as v* in `tag`, it also covers later tags:"
    if ref.startswith("refs/heads/gh-readonly-queue/"):
        return "To allow the merge queue, ask an admin to create this policy; it covers every entry of the queue:"
    if not nearest:
        return "Ask an admin to create this policy (if the repository was renamed, to update its old policies instead):"
    # The hint may end with advice that the command already carries out.
    hint = nearest[0].hint.partition(", or add a policy")[0].rstrip(".") if len(nearest) == 1 else ""
    return f"{hint}. If this run should be allowed, ask an admin to create this policy:".removeprefix(". ")


class AgentExistsError(RefusedError):
    """The agent's name is taken (409); `agent_id` is empty if this repository may not see the agent that has it."""

    def __init__(self, refusal: Refusal, *, agent_id: str) -> None:
        super().__init__(
            refusal,
            "Another repository or an admin has already registered an agent with this name.",
            "To register a new agent, choose another `agent-name`. To act as the existing agent, ask an admin for "
            "its id and for a trust policy that links this repository to it, and use issue-token.",
        )
        self.agent_id = agent_id
        self.refusal = refusal


class AgentNotActiveError(RefusedError):
    """The agent belongs to this repository but is not active; only an admin can change that."""

    def __init__(self, agent_id: str, status: str, found: AgentExistsError) -> None:
        remedy = (
            self.remedies["AGENT_DECOMMISSIONED"]
            if status == "decommissioned"
            else "Ask an admin of the provider to make it active again (PATCH its `status`)."
        )
        super().__init__(found.refusal, f"The agent {agent_id} is {status}.", remedy)
