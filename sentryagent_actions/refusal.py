"""Turning the provider's error responses into errors: pure functions that trust no part of a response."""

import re
from collections.abc import Mapping
from typing import cast

from sentryagent_actions.errors import ActionError, InvalidResponseError, ProviderUnreachableError
from sentryagent_actions.inputs import INPUT_OF_FIELD
from sentryagent_actions.network import Reply
from sentryagent_actions.origin import Origin
from sentryagent_actions.refused import (
    AgentExistsError,
    Explanation,
    IdTokenRejectedError,
    PolicyRefusedError,
    ProviderOverloadedError,
    Refusal,
    RefusedError,
    UnmetCondition,
)
from sentryagent_actions.untrusted import one_line, shown

_CODE = re.compile(r"[A-Z][A-Z0-9_]{2,63}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TAG = re.compile(r"<[^>]*>")
_MAX_POLICIES = 3
_MAX_ROWS = 12
_MAX_ANSWER = 2000  # bytes of a page that are read for its first words
_EXPLAINED = frozenset({"BRANCH_NOT_PERMITTED", "TRUST_POLICY_VIOLATION", "IDENTITY_CHANGED"})


def read_refusal(reply: Reply, api_url: Origin, now: float) -> ActionError:
    """Return the error for a response whose status is not 2xx; `Retry-After` is relative to `now`, in epoch seconds."""
    try:
        problem = reply.json_object()
    except ValueError:
        problem = {}
    code = _code(problem)
    if not code:
        return _foreign(reply, api_url, now)
    message = shown(problem.get("message", problem.get("error_description", "")), 500)
    refusal = Refusal(
        api_url=api_url,
        code=code,
        message=message or f"It responded with {reply.status} and gave no reason.",
        details=_mapping(problem.get("details")),
        status=reply.status,
        # A proxy may have removed the header.
        request_id=read_request_id(reply) or _request_id(problem.get("requestId")),
        retry_after=reply.retry_after(now),
    )
    return ProviderOverloadedError(refusal) if reply.is_retryable else _final(refusal)


def read_request_id(reply: Reply) -> str:
    """Return the `X-Request-Id` of a response, or the empty string if it is missing or malformed."""
    return _request_id(reply.headers.get("x-request-id"))


def _request_id(value: object) -> str:
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else ""


def _code(problem: Mapping[str, object]) -> str:
    # `/token/revoke` responds in the format of RFC 6749, section 5.2.
    value = problem.get("code", problem.get("error"))
    code = value.upper() if isinstance(value, str) else ""
    return code if _CODE.fullmatch(code) else ""


def _foreign(reply: Reply, api_url: Origin, now: float) -> ActionError:
    """Return the error for a response that does not come from the provider."""
    if reply.is_retryable:
        cause, remedy = _gateway(reply.status)
        return ProviderUnreachableError(
            f"{api_url} responded with {reply.status}, but not in the format of a SentryAgent provider: {cause}.",
            remedy=remedy,
            http_status=reply.status,
            retry_after=reply.retry_after(now),
        )
    refuses = reply.status in {401, 403, 407, 451}
    error = InvalidResponseError(
        f"{api_url} responded with {reply.status}, but not in the format of a SentryAgent provider"
        + (": a gateway or firewall in front of it probably refused the request." if refuses else "."),
        remedy="Ask the operator of that gateway to let this runner through, or check `api-url`."
        if refuses
        else "Check that `api-url` is the address of the provider.",
        http_status=reply.status,
    )
    error.excerpt = excerpt(reply.body)
    return error


def _gateway(status: int) -> tuple[str, str]:
    if status == 429:
        return (
            "a gateway in front of it limits the rate of requests",
            "Start fewer jobs at once, or raise `timeout`.",
        )
    return "a gateway in front of it probably cannot reach it", "Check that the provider is running."


def excerpt(body: bytes) -> str:
    """Return the beginning of a page as one sanitised line without markup."""
    return one_line(_TAG.sub(" ", body[:_MAX_ANSWER].decode("utf-8", "replace")), 200)


def _clause(message: str) -> str:
    """Return the cause only: the provider appends advice for callers of its API."""
    return message.partition("; ")[0].rstrip(".") + "."


def _final(refusal: Refusal) -> RefusedError:
    cause, details = _clause(refusal.message), refusal.details
    if refusal.code == "INVALID_OIDC_TOKEN":
        return _rejected_id_token(refusal, cause)
    if refusal.code in _EXPLAINED:
        return PolicyRefusedError(refusal, cause=cause, explanation=_explanation(details))
    if refusal.code == "AGENT_ALREADY_EXISTS":
        return AgentExistsError(refusal, agent_id=shown(details.get("agentId") or "", 64))
    if refusal.code == "VALIDATION_ERROR" and "field" in details:
        return _invalid_value(refusal, details)
    return RefusedError(refusal, cause, *_remedy(refusal.code, details))


def _rejected_id_token(refusal: Refusal, cause: str) -> IdTokenRejectedError:
    details = refusal.details
    reason, expected = shown(details.get("reason", ""), 60), details.get("expectedAudience")
    trusted = details.get("expectedIssuers")
    if reason == "wrong_audience" and expected:
        cause = f"The ID token has the wrong audience: this provider expects {shown(expected)}."
    elif reason == "wrong_issuer" and trusted:
        actual = shown(details.get("issuer") or "another issuer")
        cause = (
            f"This provider trusts only tokens from {_words(trusted, ' and ')}; this one is from {actual}."
        )
    error = IdTokenRejectedError(
        refusal, reason=reason, cause=cause, expected=shown(expected) if expected else ""
    )
    if reason == "wrong_issuer":
        error.add_issuers(details.get("issuer"), trusted if isinstance(trusted, list) else [])
    return error


def _invalid_value(refusal: Refusal, details: Mapping[str, object]) -> RefusedError:
    field = shown(details["field"], 60)
    reason = shown(details.get("reason") or refusal.message.removeprefix(f"{field}: "), 300).rstrip(".")
    reason = re.sub("^Input should ", "must ", reason)
    source = INPUT_OF_FIELD.get(field.partition(".")[0])
    if source:
        return RefusedError(refusal, f"Input `{source}`: {reason}.", "Correct it under `with:`.")
    return RefusedError(
        refusal,
        f"The field {field} of the request: {reason}.",
        "Use a version of this action that matches the provider's.",
    )


def _remedy(code: str, details: Mapping[str, object]) -> tuple[str, str]:
    """Return the remedy and the snippet for a refusal whose details name more than its code."""
    if code == "SCOPE_NOT_PERMITTED" and "permitted" in details:
        return f"Set the input `scope` to one or more of: {_words(details['permitted'], ' ')}.", ""
    if code == "SCOPE_NOT_PERMITTED":
        return "Leave the input `scope` empty, or ask an admin to extend the trust policy's `scopes`.", ""
    if code == "SERVICE_NOT_PERMITTED" and details.get("permitted"):
        return f"Set the input `resource` to one of: {_words(details['permitted'], ' ')}.", ""
    if code == "SERVICE_NOT_PERMITTED":
        return "Ask an admin for a trust policy that grants the service to this agent (`grants`).", ""
    if code == "FORBIDDEN" and "requiredScope" in details:
        return (
            f"The call needs the scope {shown(details['requiredScope'], 60)}: ask an admin to grant it.",
            "",
        )
    return "", ""


def _words(value: object, separator: str) -> str:
    return shown(separator.join(map(str, value)) if isinstance(value, list) else value)


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
    expected, actual, hint = failed.get("expected"), failed.get("actual"), str(failed.get("hint") or "")
    if _look_alike(expected, actual):
        expected, actual = ascii(expected), ascii(actual)
        hint = "The two look alike but are different characters: copy the name from GitHub into the policy."
    return UnmetCondition(
        policy_id=shown(policy.get("id"), 64),
        condition=shown(failed.get("condition"), 60),
        expected=shown(expected),
        actual=shown(actual),
        hint=one_line(hint),
    )


def _look_alike(expected: object, actual: object) -> bool:
    """Return whether two names differ only in Unicode normalisation or in invisible characters."""
    if not isinstance(expected, str) or not isinstance(actual, str) or expected == actual:
        return False
    return _visible(expected) == _visible(actual)


def _visible(name: str) -> str:
    import unicodedata  # takes a millisecond, and a refusal with a look-alike is rare

    seen = (it for it in unicodedata.normalize("NFKC", name) if unicodedata.category(it) not in {"Cf", "Cc"})
    return "".join(seen).strip()


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, object]]:
    return [_mapping(item) for item in value] if isinstance(value, list) else []
