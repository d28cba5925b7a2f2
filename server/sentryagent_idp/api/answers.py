"""What answers look like, for `/openapi.json`; the functions that make them stand in `sentryagent_idp.domain.records` and the views.

Nothing is validated by these on its way out: tests hold every answer against them.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, get_type_hints
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.alias_generators import to_camel

from sentryagent_idp.api.models import AgentType, DeploymentEnv, Scope, json_type
from sentryagent_idp.domain.agent import AgentStatus
from sentryagent_idp.domain.audit import Action, Outcome
from sentryagent_idp.domain.conditions import DECLARED
from sentryagent_idp.domain.records import policy_fields
from sentryagent_idp.domain.trust_policy import TrustPolicy


class Answer(BaseModel):
    """An answer: members in camelCase, each of them always there."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class OauthAnswer(BaseModel):
    """An answer with the names of the RFCs."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(Answer):
    """A refusal: a code for programs, a sentence that tells what to do, and the id of the audit record and the log."""

    code: str
    message: str
    details: dict[str, Any]
    request_id: UUID


class OauthError(OauthAnswer):
    """A refusal in the shape of RFC 6749, section 5.2; the description starts with the code of the other shape."""

    error: str
    error_description: str


class ExchangedToken(OauthAnswer):
    """RFC 8693, section 2.2.1; `expires_in` is in seconds."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int = Field(ge=1)
    expires_at: datetime
    scope: str
    issued_token_type: Literal["urn:ietf:params:oauth:token-type:access_token"]


class DryRun(Answer):
    """What an exchange would have given; nothing was burnt, pinned or issued."""

    model_config = ConfigDict(alias_generator=lambda name: name if name == "expires_in" else to_camel(name))

    dry_run: Literal[True]
    allowed: Literal[True]
    scope: str
    expires_in: int = Field(ge=1)
    policy_id: UUID


class Audience(Answer):
    """The `aud` to request a GitHub token for."""

    audience: str


class ClientToken(OauthAnswer):
    """RFC 6749, section 5.1."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int = Field(ge=1)
    scope: str


class Inactive(OauthAnswer):
    """RFC 7662: the token does not count."""

    active: Literal[False]


class Active(OauthAnswer):
    """RFC 7662: the token counts; `provenance` is the run that it was issued to."""

    active: Literal[True]
    scope: str
    client_id: str
    sub: str
    token_type: Literal["Bearer"]
    iss: str
    aud: str
    iat: int
    exp: int
    jti: str
    provenance: dict[str, str] = Field(default_factory=dict)


_TYPES = {
    **get_type_hints(TrustPolicy),
    **{name: json_type(it) | None for name, it in DECLARED.items()},
    "provider": Literal["github"],
    "scopes": list[Scope],
    "version": Annotated[int, Field(ge=1)],
}
_FIELDS: Any = {name: (_TYPES[name], ...) for name, _ in policy_fields()}
_Policy: Any = create_model("_Policy", __base__=Answer, **_FIELDS)


class Policy(_Policy):  # type: ignore[misc]  # made of the policy's fields and the conditions' declarations
    """A trust policy."""


class FailedCondition(Answer):
    """A condition of a policy that the run does not meet, and what to change."""

    condition: str
    expected: Any
    actual: Any
    hint: str


class TracedPolicy(Answer):
    """A policy that was looked at."""

    policy_id: UUID
    matched: list[str]
    failed: list[FailedCondition]


class Simulated(Answer):
    """What the exchange would decide."""

    allowed: bool
    code: str | None
    reason: str | None
    policy_id: UUID | None
    scope: str | None
    trace: list[TracedPolicy]


class RegisteredBy(Answer):
    """The repository that registered an agent."""

    provider: str
    repository: str
    repository_id: str


class Agent(Answer):
    """An agent."""

    agent_id: UUID
    email: str
    description: str | None
    agent_type: AgentType
    version: str
    capabilities: list[str]
    owner: str
    deployment_env: DeploymentEnv
    status: AgentStatus
    registered_by: RegisteredBy | None
    created_at: datetime
    updated_at: datetime


class Credential(Answer):
    """A client secret's record, without the secret."""

    credential_id: UUID
    client_id: UUID
    status: Literal["active", "revoked"]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewSecret(Credential):
    """A client secret, shown this once."""

    client_secret: str


class AuditEntry(Answer):
    """One line of the audit."""

    event_id: UUID
    timestamp: datetime
    action: Action
    outcome: Outcome
    actor: str
    agent_id: UUID | None
    policy_id: UUID | None
    policy_version: int | None
    repository: str | None
    request_id: str
    address: str | None
    details: dict[str, Any]


class SealedUpTo(Answer):
    """A seal's number and hash; 0 and 64 zeros where nothing is sealed yet."""

    seal: int
    hash: str


class AuditProof(Answer):
    """Whether the hash chain confirms every record; `unsealed` ones wait for their seal, at most a second or so.

    `head` is the last seal that was in order: keep it outside, and a removed end of the chain can be found.
    """

    valid: bool
    checked: int
    first_broken: str | None
    head: SealedUpTo
    reason: str | None
    unsealed: int
    missing: int


class Listed(Answer):
    """One page of a list."""

    data: list[Any]
    total: int = Field(ge=0)
    page: int = Field(ge=1)
    limit: int = Field(ge=1, le=100)


class Policies(Listed):
    """One page of the policies."""

    data: list[Policy]


class Agents(Listed):
    """One page of the agents that the caller may see."""

    data: list[Agent]


class Credentials(Listed):
    """One page of an agent's credentials."""

    data: list[Credential]


class Audit(Listed):
    """One page of the audit, newest first."""

    data: list[AuditEntry]


class KeySet(OauthAnswer):
    """A JWK Set (RFC 7517, section 5)."""

    keys: list[dict[str, str]]


class Metadata(OauthAnswer):
    """Where things are (RFC 8414)."""

    model_config = ConfigDict(extra="allow")

    issuer: str
    token_endpoint: str
    jwks_uri: str
    introspection_endpoint: str
    revocation_endpoint: str
    scopes_supported: list[Scope]


class Health(Answer):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Answer):
    """The state of each part: `ok`, or what is wrong."""

    status: Literal["ready", "unavailable"]
    database: str
    migrations: str
    signing_key: str
    issuer_keys: dict[str, Any]
