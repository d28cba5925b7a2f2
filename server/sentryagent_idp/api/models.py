"""Request bodies: strict types, no unknown fields, each rule with a sentence."""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from sentryagent_idp.domain import policy_syntax, scopes
from sentryagent_idp.domain.agent import AGENT_TYPES, DEPLOYMENT_ENVS, AgentStatus
from sentryagent_idp.domain.condition_kinds import Condition, Flag, Listed
from sentryagent_idp.domain.conditions import DECLARED
from sentryagent_idp.domain.identity import CLAIM_PREFIXES
from sentryagent_idp.domain.scopes import DEFAULT_POLICY_SCOPES
from sentryagent_idp.domain.text import has_unprintable

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
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,64}( [\x21\x23-\x5b\x5d-\x7e]{1,64})*", re.ASCII)
_MAX_SCOPE_LENGTH = 1024
_MAX_STORED_INTEGER = 2**31 - 1


def _uuid(value: object) -> object:
    if not isinstance(value, str) or not UUID_FORM.fullmatch(value):
        raise ValueError("it must be a UUID such as 3f2504e0-4f89-41d3-9a0c-0305e82c3301")
    return uuid.UUID(value)


def parse_moment(value: object) -> datetime:
    """A time with its zone in ISO 8601, in UTC; raises `ValueError` with advice."""
    moment = _moment(value) if isinstance(value, str) and "T" in value else None
    if moment is None:
        raise ValueError("it must be a time with its zone such as 2027-01-31T12:00:00Z")
    return moment


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):  # a zone can carry the first and the last day out of the calendar
        return None


def scope_problem(text: str) -> str | None:
    """The problem with a list of scopes (RFC 6749, 3.3), or `None`.

    The length of each is bounded: what is longer than any scope may be a token in the wrong field, and a refusal
    that repeats the scope would carry it into log and audit (federation-security B19).
    """
    if len(text) <= _MAX_SCOPE_LENGTH and _SCOPE.fullmatch(text):
        return None
    return "write scopes of at most 64 characters separated by single blanks, or leave it out"


def _matching(pattern: re.Pattern[str], advice: str) -> tuple[AfterValidator, FieldInfo]:
    """A rule by a pattern, which the schema shows as well."""
    rule = _rule(lambda text: None if pattern.fullmatch(text) else advice)
    return rule, Field(json_schema_extra={"pattern": f"^({pattern.pattern})$"})


def _rule(problem_of: Callable[[Any], str | None]) -> AfterValidator:
    """A rule of the domain, which gives the problem as a sentence."""

    def check(value: Any) -> Any:
        problem = problem_of(value)
        if problem is not None:
            raise ValueError(problem)
        return value

    return AfterValidator(check)


def _one_of(words: Sequence[str]) -> tuple[AfterValidator, FieldInfo]:
    rule = _rule(lambda text: None if text in words else f"it must be one of {', '.join(words)}")
    return rule, Field(json_schema_extra={"enum": list(words)})


def _unprintable_but(besides: str) -> Callable[[str], str | None]:
    return lambda text: "it holds control characters" if has_unprintable(text, besides=besides) else None


Uuid = Annotated[UUID, BeforeValidator(_uuid)]
Moment = Annotated[datetime, BeforeValidator(parse_moment)]
Line = Annotated[str, _rule(_unprintable_but(""))]
Text = Annotated[str, _rule(_unprintable_but("\n\t"))]
ScopeText = Annotated[str, _rule(scope_problem)]
Email = Annotated[
    str, Field(max_length=255), *_matching(_EMAIL, "write an e-mail address such as agent@example.com")
]
Version = Annotated[str, Field(max_length=64), *_matching(_SEMVER, "write a semantic version such as 1.0.0")]
Capability = Annotated[
    str, Field(max_length=128), *_matching(_CAPABILITY, "write resource:action, such as ci:run")
]


def _status(text: str) -> AgentStatus:
    return AgentStatus(text)


Capabilities = Annotated[list[Capability], Field(min_length=1, max_length=100), AfterValidator(tuple)]
Owner = Annotated[Line, Field(min_length=1, max_length=128)]
Description = Annotated[Text, Field(max_length=1024)]
AgentType = Annotated[str, *_one_of(AGENT_TYPES)]
DeploymentEnv = Annotated[str, *_one_of(DEPLOYMENT_ENVS)]
Scope = Annotated[str, *_one_of(scopes.ALL_SCOPES)]


class Body(BaseModel):
    """A request body: fields in camelCase, no coercion, nothing unknown."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, hide_input_in_errors=True, strict=True
    )


class ExchangeBody(Body):
    """`POST /oidc/token` in JSON; `expiresIn` is in seconds."""

    token: str = Field(repr=False)
    agent_id: Uuid | None = None
    provider: Literal["github"] = "github"
    scope: ScopeText | None = None
    expires_in: int | None = Field(None, ge=1)
    dry_run: bool = False


class NewAgent(Body):
    """`POST /agents`."""

    email: Email
    description: Description | None = None
    agent_type: AgentType = "custom"
    version: Version = "1.0.0"
    capabilities: Capabilities = Field(["ci:run"], validate_default=True)
    owner: Owner | None = None
    deployment_env: DeploymentEnv = "production"


class AgentChanges(Body):
    """`PATCH /agents/{agentId}`: the members that are there change."""

    email: Email | None = None
    description: Description | None = None
    agent_type: AgentType | None = None
    version: Version | None = None
    capabilities: Capabilities | None = None
    owner: Owner | None = None
    deployment_env: DeploymentEnv | None = None
    status: Annotated[Literal["active", "suspended"], AfterValidator(_status)] | None = None


class NewCredential(Body):
    """`POST /agents/{agentId}/credentials`."""

    expires_at: Moment | None = None


NumericId = Annotated[str, _rule(policy_syntax.numeric_id)]
Repository = Annotated[str, _rule(policy_syntax.repository)]
_LITERAL: Any = Literal


def json_type(condition: Condition) -> Any:
    """The type of a condition's value in JSON."""
    return _LITERAL[condition.words] if condition.words else condition.json_type


def _written(condition: Condition) -> Any:
    """The type of a condition's value in a body, with its rule."""
    rule = _rule(condition.problem)
    if isinstance(condition, Listed):
        return Annotated[list[Annotated[str, rule]], Field(min_length=1, max_length=100)]
    if isinstance(condition, Flag):
        return Annotated[condition.json_type, BeforeValidator(rule.func)]
    return json_type(condition) if condition.words else Annotated[json_type(condition), rule]


def _fields(types: Mapping[str, Any]) -> Any:
    """Optional fields of these types."""
    return {name: (kind | None, None) for name, kind in types.items()}


_ON_REF = {name: _written(row) for name, row in DECLARED.items() if "ref" in row.claims}
_OTHERS = {name: _written(row) for name, row in DECLARED.items() if "ref" not in row.claims}

_PUBLISHED_ORDER: Any = {
    "provider": (Literal["github"], "github"),
    "repository": (Repository, ...),
    **_fields({**_ON_REF, "agent_id": Uuid, **_OTHERS}),
}
_PolicyConditions: Any = create_model("_PolicyConditions", __base__=Body, **_PUBLISHED_ORDER)


class PolicyBody(_PolicyConditions):  # type: ignore[misc]  # made of the conditions' declarations
    """`POST` and `PUT /oidc/trust-policies`; `maxTtl` is in seconds."""

    repository_id: NumericId | None = None
    repository_owner_id: NumericId | None = None
    scopes: list[Scope] = Field(list(DEFAULT_POLICY_SCOPES), min_length=1)
    max_ttl: int | None = Field(None, ge=1, le=_MAX_STORED_INTEGER)
    trust_registered: bool = False
    enabled: bool = True
    expires_at: Moment | None = None
    description: Description | None = None

    @field_validator("tag")
    @classmethod
    def _not_beside_a_branch(cls, tag: str | None, info: ValidationInfo) -> str | None:
        problem = policy_syntax.branch_and_tag(info.data.get("branch"), tag)
        if problem:
            raise ValueError(problem)
        return tag

    @field_validator("events")
    @classmethod
    def _reachable(cls, events: list[str] | None, info: ValidationInfo) -> list[str] | None:
        names_ref = any(info.data.get(name) is not None for name in _ON_REF)
        problem = policy_syntax.unreachable(events, names_ref=names_ref)
        if problem:
            raise ValueError(problem)
        return events

    @field_validator("trust_registered")
    @classmethod
    def _for_bootstrap_only(cls, trust_registered: bool, info: ValidationInfo) -> bool:
        if trust_registered and info.data.get("agent_id") is not None:
            raise ValueError("It is for bootstrap policies; leave it out beside agentId.")
        return trust_registered


class StoredPolicyBody(PolicyBody):
    """`PUT /oidc/trust-policies/{id}`: what a GET gave may come back; the server's own members are ignored.

    `derivedFrom: null` makes a derived policy one of its own.
    """

    id: Uuid | None = None
    issuer: Any = None
    created_at: Any = None
    updated_at: Any = None
    version: Any = None
    last_used_at: Any = None
    derived_from: Any = None


_PREFIXES = tuple(CLAIM_PREFIXES.values())


def _show_prefixes(schema: dict[str, Any]) -> None:
    """Show the claims that are named by a prefix; other ones are ignored, and so not shown."""
    schema.pop("additionalProperties", None)
    schema["patternProperties"] = {f"^{prefix}": {"type": "string"} for prefix in _PREFIXES}


class RunClaims(BaseModel):
    """The claims that every decision looks at, by GitHub's names."""

    model_config = ConfigDict(
        extra="allow", frozen=True, hide_input_in_errors=True, json_schema_extra=_show_prefixes, strict=True
    )
    __pydantic_extra__: dict[str, str]

    repository: Repository
    repository_id: NumericId
    repository_owner_id: NumericId
    ref: str
    event_name: str
    ref_type: str | None = None
    sha: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_not_read(cls, claims: Any) -> Any:
        if not isinstance(claims, dict):
            return claims
        return {
            name: value
            for name, value in claims.items()
            if name in cls.model_fields or (value is not None and name.startswith(_PREFIXES))
        }


_ConditionClaims: Any = create_model(
    "_ConditionClaims",
    __base__=RunClaims,
    **_fields(
        {
            claim: str
            for condition in DECLARED.values()
            for claim in condition.claims or (condition.actual,)
            if claim not in RunClaims.model_fields and claim not in CLAIM_PREFIXES
        }
    ),
)


class Claims(_ConditionClaims):  # type: ignore[misc]  # made of the conditions' declarations
    """The claims of a run that might be, by GitHub's names; what is not decided on may be there and is ignored."""


class SimulationBody(Body):
    """`POST /oidc/trust-policies/simulate`: either claims or a token."""

    claims: Claims | None = None
    token: str | None = Field(None, repr=False)
    agent_id: Uuid | None = None


class ExchangeForm(BaseModel):
    """RFC 8693, section 2.1; `resource` is `urn:sentryagent:agent:<agentId>`, absent for a bootstrap token."""

    grant_type: Literal["urn:ietf:params:oauth:grant-type:token-exchange"]
    subject_token: str
    subject_token_type: Literal[
        "urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"
    ]
    requested_token_type: Literal["urn:ietf:params:oauth:token-type:access_token"] | None = None
    resource: str | None = None
    audience: str | None = None
    scope: str | None = None


class ClientForm(BaseModel):
    """RFC 6749, section 4.4.2; the two members of the client only without an Authorization header."""

    grant_type: Literal["client_credentials"]
    client_id: str | None = None
    client_secret: str | None = None
    scope: str | None = None


class IntrospectionForm(BaseModel):
    """RFC 7662, section 2.1."""

    token: str
    token_type_hint: str | None = None


class RevocationForm(BaseModel):
    """RFC 7009, section 2.1; the two members of the client only without an Authorization header."""

    token: str
    token_type_hint: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
