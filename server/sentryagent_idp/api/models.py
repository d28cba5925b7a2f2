"""Request bodies of the exchange, the policies and the tokens: strict types, no unknown fields.

The bodies of other resources are next to their views.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from sentryagent_idp.api.fields import (
    Body,
    DescriptionText,
    Lifetime,
    Moment,
    NumericId,
    Repository,
    ResourceText,
    Scope,
    ScopeName,
    Uuid,
    rule,
    scope_problem,
)
from sentryagent_idp.domain import policy_syntax
from sentryagent_idp.domain.condition_kinds import Condition, Flag, Listed
from sentryagent_idp.domain.conditions import DECLARED
from sentryagent_idp.domain.identity import CLAIM_PREFIXES
from sentryagent_idp.domain.scopes import DEFAULT_POLICY_SCOPES
from sentryagent_idp.domain.service import MAX_GRANTS, MAX_SCOPES


class ExchangeBody(Body):
    """`POST /oidc/token` in JSON; `expiresIn` is in seconds."""

    token: str = Field(repr=False)
    agent_id: Uuid | None = None
    provider: Literal["github"] = "github"
    resource: ResourceText | None = None
    scope: str | None = None
    expires_in: int | None = Field(None, ge=1)
    dry_run: bool = False

    @field_validator("scope")
    @classmethod
    def _of_scopes(cls, scope: str | None, info: ValidationInfo) -> str | None:
        problem = None if scope is None else scope_problem(scope, info.data.get("resource"))
        if problem:
            raise ValueError(problem)
        return scope


class GrantBody(Body):
    """The scopes that a policy grants for a service, which is named by its identifier."""

    service: ResourceText
    scopes: list[ScopeName] = Field(min_length=1, max_length=MAX_SCOPES)

    @field_validator("scopes")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("duplicate scope; list each once")
        return names


MAX_RUNS = 100
"""The most runs in one simulation."""

_LITERAL: Any = Literal


def json_type(condition: Condition) -> Any:
    """The type of a condition's value in JSON."""
    return _LITERAL[condition.words] if condition.words else condition.json_type


def _written(condition: Condition) -> Any:
    """The type of a condition's value in a request body, with its rule."""
    check = rule(condition.problem)
    if isinstance(condition, Listed):
        return Annotated[list[Annotated[str, check]], Field(min_length=1, max_length=100)]
    if isinstance(condition, Flag):
        return Annotated[condition.json_type, BeforeValidator(check.func)]
    return json_type(condition) if condition.words else Annotated[json_type(condition), check]


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


class PolicyBody(_PolicyConditions):  # type: ignore[misc]  # built from the conditions' declarations
    """`POST` and `PUT /oidc/trust-policies`; `maxTtl` is in seconds.

    `issuer` must be a configured issuer; without it, the first one is used.
    """

    issuer: str | None = None
    repository_id: NumericId | None = None
    repository_owner_id: NumericId | None = None
    max_ttl: Lifetime | None = None
    trust_registered: bool = False
    grants: list[GrantBody] = Field([], max_length=MAX_GRANTS)
    scopes: list[Scope] = Field(list(DEFAULT_POLICY_SCOPES))
    enabled: bool = True
    expires_at: Moment | None = None
    description: DescriptionText | None = None

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
            raise ValueError("it is only for bootstrap policies; leave it out if agentId is set")
        return trust_registered

    @field_validator("grants")
    @classmethod
    def _for_agents(cls, grants: list[GrantBody], info: ValidationInfo) -> list[GrantBody]:
        is_bootstrap = info.data.get("agent_id") is None and not info.data.get("trust_registered")
        if grants and is_bootstrap:
            raise ValueError("grants require an agent; set agentId, or trustRegistered in a bootstrap policy")
        if len({grant.service for grant in grants}) < len(grants):
            raise ValueError("duplicate service; list each once, with all its scopes")
        return grants

    @field_validator("scopes")
    @classmethod
    def _something(cls, names: list[str], info: ValidationInfo) -> list[str]:
        if not names and not info.data.get("grants"):
            raise ValueError("list at least one scope; only a policy with grants may have none")
        return names


class StoredPolicyBody(PolicyBody):
    """`PUT /oidc/trust-policies/{id}`: the response to a GET may be sent back; the server's own fields are ignored.

    `derivedFrom: null` detaches a derived policy from its origin.
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
    """Show the claims that share a prefix; other extra claims are ignored, and therefore not shown."""
    schema.pop("additionalProperties", None)
    schema["patternProperties"] = {f"^{prefix}": {"type": "string"} for prefix in _PREFIXES}


class RunClaims(BaseModel):
    """The claims that every decision reads, under GitHub's names."""

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
    iss: str | None = None

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


class Claims(_ConditionClaims):  # type: ignore[misc]  # built from the conditions' declarations
    """The claims of a hypothetical run, under GitHub's names; claims that no decision reads are ignored."""


def _without_nulls(run: Any) -> Any:
    return {name: it for name, it in run.items() if it is not None} if isinstance(run, dict) else run


class SimulatedRun(Body):
    """One run to simulate, given by its claims."""

    claims: Claims
    agent_id: Uuid | None = None
    resource: ResourceText | None = None


class SimulationBody(Body):
    """`POST /oidc/trust-policies/simulate`: claims, a token, or several runs."""

    claims: Claims | None = None
    token: str | None = Field(None, repr=False)
    agent_id: Uuid | None = None
    resource: ResourceText | None = None
    runs: list[Annotated[SimulatedRun, BeforeValidator(_without_nulls)]] | None = Field(
        None, min_length=1, max_length=MAX_RUNS
    )


class ExchangeForm(BaseModel):
    """A token exchange (RFC 8693, section 2.1); `resource` is `urn:sentryagent:agent:<agentId>`, absent for a bootstrap token.

    `audience`, or a second `resource`, is the identifier of the service that the token is for.
    """

    grant_type: Literal["urn:ietf:params:oauth:grant-type:token-exchange"]
    subject_token: str
    subject_token_type: Literal[
        "urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"
    ]
    requested_token_type: Literal["urn:ietf:params:oauth:token-type:access_token"] | None = None
    resource: str | list[str] | None = None
    audience: str | None = None
    scope: str | None = None


class ClientForm(BaseModel):
    """A client-credentials request (RFC 6749, section 4.4.2); `client_id` and `client_secret` replace the Authorization header."""

    grant_type: Literal["client_credentials"]
    client_id: str | None = None
    client_secret: str | None = None
    scope: str | None = None


class IntrospectionForm(BaseModel):
    """The token to introspect (RFC 7662, section 2.1)."""

    token: str
    token_type_hint: str | None = None


class RevocationForm(BaseModel):
    """The token to revoke (RFC 7009, section 2.1); `client_id` and `client_secret` replace the Authorization header."""

    token: str
    token_type_hint: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
