"""Reading what the provider answers when it says no: pure, and suspicious of every word."""

import re
from collections.abc import Mapping
from typing import cast

from sentryagent_actions.errors import (
    ActionError,
    AgentExistsError,
    Explanation,
    IdTokenRejectedError,
    InvalidResponseError,
    PolicyRefusedError,
    ProviderOverloadedError,
    ProviderUnreachableError,
    RefusedError,
    UnmetCondition,
)
from sentryagent_actions.inputs import INPUT_OF_FIELD
from sentryagent_actions.network import Reply
from sentryagent_actions.origin import Origin
from sentryagent_actions.untrusted import one_line, shown

_CODE = re.compile(r"[A-Z][A-Z0-9_]{2,63}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_POLICIES = 3
_MAX_ROWS = 12
_EXPLAINED = frozenset({"BRANCH_NOT_PERMITTED", "TRUST_POLICY_VIOLATION", "IDENTITY_CHANGED"})


def read_refusal(reply: Reply, api_url: Origin, now: float) -> ActionError:
    """Return the error that an answer other than 2xx stands for; `now` in epoch seconds dates `Retry-After`."""
    request_id = read_request_id(reply)
    try:
        problem = reply.json_object()
    except ValueError:
        problem = {}
    code = _code(problem)
    message = shown(problem.get("message", problem.get("error_description", "")), 500)
    if not code:
        return _foreign(reply, api_url, now)
    if reply.is_retryable:
        return ProviderOverloadedError(
            code, message, http_status=reply.status, request_id=request_id, retry_after=reply.retry_after(now)
        )
    return _final(code, message, _mapping(problem.get("details")), reply.status, request_id, api_url)


def read_request_id(reply: Reply) -> str:
    """Return the `X-Request-Id` of an answer, or the empty string for one that is none."""
    value = reply.headers.get("x-request-id", "")
    return value if _REQUEST_ID.fullmatch(value) else ""


def _code(problem: Mapping[str, object]) -> str:
    # `/token/revoke` answers in the shape of RFC 6749, 5.2.
    value = problem.get("code", problem.get("error"))
    code = value.upper() if isinstance(value, str) else ""
    return code if _CODE.fullmatch(code) else ""


def _foreign(reply: Reply, api_url: Origin, now: float) -> ActionError:
    if reply.is_retryable:
        return ProviderUnreachableError(
            f"{api_url} answered {reply.status} in words that are not the provider's: probably a gateway in front of it "
            "that cannot reach it.",
            remedy="Check that the provider runs.",
            http_status=reply.status,
            retry_after=reply.retry_after(now),
        )
    return InvalidResponseError(
        f"{api_url} answered {reply.status} and not as a SentryAgent provider does.",
        remedy="Check `api-url`.",
        http_status=reply.status,
    )


def _final(
    code: str, message: str, details: Mapping[str, object], status: int, request_id: str, api_url: Origin
) -> RefusedError:
    if code == "INVALID_OIDC_TOKEN":
        reason = shown(details.get("reason", ""), 60)
        expected = details.get("expectedAudience")
        if expected and shown(expected) not in message:
            message += f" The provider expects the audience {shown(expected)}."
        return IdTokenRejectedError(message, reason=reason, http_status=status, request_id=request_id)
    if code in _EXPLAINED:
        return PolicyRefusedError(
            code,
            message,
            explanation=_explanation(details),
            policies_url=f"{api_url}/api/v1/oidc/trust-policies",
            http_status=status,
            request_id=request_id,
        )
    if code == "AGENT_ALREADY_EXISTS":
        agent_id = shown(details.get("agentId") or "", 64)
        return AgentExistsError(message, agent_id=agent_id, http_status=status, request_id=request_id)
    return RefusedError(
        code, message, http_status=status, request_id=request_id, remedy=_remedy(code, message, details)
    )


def _remedy(code: str, message: str, details: Mapping[str, object]) -> str:
    if code == "VALIDATION_ERROR" and "field" in details:
        field, reason = shown(details["field"], 60), shown(details.get("reason", ""))
        source = INPUT_OF_FIELD.get(field.partition(".")[0])
        about = f"the input `{source}`" if source else f"the field {field}"
        return f"This is about {about}" + ("." if reason in message else f": {reason}.")
    if code == "SCOPE_NOT_PERMITTED" and "permitted" in details:
        return f"Set the input `scope` to a part of: {_scopes(details['permitted'])}."
    if code == "FORBIDDEN" and "requiredScope" in details:
        return f"The call needs the scope {shown(details['requiredScope'], 60)}."
    return ""


def _scopes(value: object) -> str:
    return shown(" ".join(map(str, value)) if isinstance(value, list) else value)


def _explanation(details: Mapping[str, object]) -> Explanation:
    claims = list(_mapping(details.get("claims")).items())[:_MAX_ROWS]
    policies = _mappings(details.get("nearestPolicies"))[:_MAX_POLICIES]
    unmet = [_unmet(policy, failed) for policy in policies for failed in _mappings(policy.get("failed"))]
    suggested = details.get("suggestedPolicy")
    return Explanation(
        claims=tuple((shown(name, 60), shown(value)) for name, value in claims),
        unmet=tuple(unmet[:_MAX_ROWS]),
        suggested_policy=_mapping(suggested) if isinstance(suggested, dict) else None,
    )


def _unmet(policy: Mapping[str, object], failed: Mapping[str, object]) -> UnmetCondition:
    return UnmetCondition(
        policy_id=shown(policy.get("id"), 64),
        condition=shown(failed.get("condition"), 60),
        expected=shown(failed.get("expected")),
        actual=shown(failed.get("actual")),
        hint=one_line(str(failed.get("hint") or "")),
    )


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, object]]:
    return [_mapping(item) for item in value] if isinstance(value, list) else []
