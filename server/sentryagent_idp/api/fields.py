"""The field types of request bodies, each rule with its message, and the base class of all bodies."""

import re
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from sentryagent_idp.domain import policy_syntax, scopes, service
from sentryagent_idp.domain.agent import AGENT_TYPES, DEPLOYMENT_ENVS
from sentryagent_idp.domain.text import has_unprintable
from sentryagent_idp.errors import choice_reason
from sentryagent_idp.runtime.addresses import is_loopback

UUID_FORM = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_EMAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@"
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+",
    re.ASCII,
)
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
_CAPABILITY = re.compile(r"[A-Za-z0-9._*-]+:[A-Za-z0-9._*-]+", re.ASCII)
_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*", re.ASCII)
_LONGEST_SCOPE = 64
_LONGEST_SCOPES = 1024
"""The limits for scopes of the provider's own API; services may have longer scopes, and more of them."""
MAX_STORED_INTEGER = 2**31 - 1


def _uuid(value: object) -> object:
    if not isinstance(value, str) or not UUID_FORM.fullmatch(value):
        raise ValueError("it must be a UUID, such as 3f2504e0-4f89-41d3-9a0c-0305e82c3301")
    return uuid.UUID(value)


def parse_moment(value: object) -> datetime:
    """Parse an ISO 8601 time with a zone, and convert it to UTC; raises `ValueError` with advice."""
    moment = _moment(value) if isinstance(value, str) and "T" in value else None
    if moment is None:
        raise ValueError("it must be a time with its time zone, such as 2027-01-31T12:00:00Z")
    return moment


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):  # in UTC, the calendar's first or last day may be outside of it
        return None


def scope_problem(text: str, resource: str | None = None) -> str | None:
    """Return the problem with a scope list (RFC 6749, 3.3) for a service or the provider's own API, or `None`.

    The length of each scope is bounded: a longer text may be a token in the wrong field, and an error that repeats
    it would carry it into the log and the audit (B19).
    """
    longest, most = _LONGEST_SCOPE, _LONGEST_SCOPES
    if resource is not None:
        longest, most = service.MAX_SCOPE_LENGTH, service.MAX_SCOPES * (service.MAX_SCOPE_LENGTH + 1)
    if len(text) <= most and _SCOPES.fullmatch(text) and max(map(len, text.split())) <= longest:
        return None
    return f"write scopes of at most {longest} characters separated by single spaces, or leave it out"


def resource_problem(text: str) -> str | None:
    """Return the problem with a requested service's identifier, or `None`; does not check that the service exists."""
    if 1 <= len(text) <= service.MAX_IDENTIFIER_LENGTH and not has_unprintable(text):
        return None
    return f"write the identifier of a service, of at most {service.MAX_IDENTIFIER_LENGTH} characters"


def _matching(pattern: re.Pattern[str], advice: str) -> tuple[AfterValidator, FieldInfo]:
    """Return a rule that the whole text must match, and the pattern for the schema."""
    check = rule(lambda text: None if pattern.fullmatch(text) else advice)
    return check, Field(json_schema_extra={"pattern": f"^({pattern.pattern})$"})


def rule(problem_of: Callable[[Any], str | None]) -> AfterValidator:
    """Turn a rule of the domain, which returns the problem as a sentence or `None`, into a validator."""

    def check(value: Any) -> Any:
        problem = problem_of(value)
        if problem is not None:
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def _one_of(words: Sequence[str]) -> tuple[AfterValidator, FieldInfo]:
    check = rule(lambda text: None if text in words else choice_reason(words))
    return check, Field(json_schema_extra={"enum": list(words)})


def _unprintable_but(besides: str) -> Callable[[str], str | None]:
    return lambda text: "it contains control characters" if has_unprintable(text, besides=besides) else None


Uuid = Annotated[UUID, BeforeValidator(_uuid)]
Moment = Annotated[datetime, BeforeValidator(parse_moment)]
Line = Annotated[str, rule(_unprintable_but(""))]
Text = Annotated[str, rule(_unprintable_but("\n\t"))]
ResourceText = Annotated[str, rule(resource_problem)]
Email = Annotated[
    str, Field(max_length=255), *_matching(_EMAIL, "write an e-mail address such as agent@example.com")
]
Version = Annotated[str, Field(max_length=64), *_matching(_SEMVER, "write a semantic version such as 1.0.0")]
Capability = Annotated[
    str, Field(max_length=128), *_matching(_CAPABILITY, "write resource:action, such as ci:run")
]


Capabilities = Annotated[list[Capability], Field(min_length=1, max_length=100), AfterValidator(tuple)]
Owner = Annotated[Line, Field(min_length=1, max_length=128)]
DescriptionText = Annotated[Text, Field(max_length=1024)]
AgentType = Annotated[str, *_one_of(AGENT_TYPES)]
DeploymentEnv = Annotated[str, *_one_of(DEPLOYMENT_ENVS)]
Scope = Annotated[str, *_one_of(scopes.ALL_SCOPES)]


NumericId = Annotated[str, rule(policy_syntax.numeric_id)]
Repository = Annotated[str, rule(policy_syntax.repository)]
Identifier = Annotated[str, rule(lambda text: service.identifier_problem(text, is_loopback))]
ScopeName = Annotated[str, Field(min_length=1, max_length=service.MAX_SCOPE_LENGTH)]
Lifetime = Annotated[int, Field(ge=1, le=MAX_STORED_INTEGER)]
"""In seconds."""


class Body(BaseModel):
    """A request body: fields in camelCase, no coercion, no unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, hide_input_in_errors=True, strict=True
    )
