"""What the views cannot say of themselves, for `/openapi.json`: their bodies, answers, parameters and refusals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from sentryagent_idp import errors
from sentryagent_idp.api import answers, models, tokens
from sentryagent_idp.domain.agent import AGENT_TYPES, AgentStatus

Schema = Mapping[str, Any]
Refusal = type[errors.ServiceError]

_ID: Schema = {"type": "string", "format": "uuid"}
_TEXT: Schema = {"type": "string"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_PAGING: Mapping[str, Schema] = {
    "page": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 1},
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
}


class Form(BaseModel):
    """A body in application/x-www-form-urlencoded; what is empty counts as absent (RFC 6749, 3.2)."""

    model_config = ConfigDict(frozen=True)


class ExchangeForm(Form):
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


class ClientForm(Form):
    """RFC 6749, section 4.4.2; the two members of the client only without an Authorization header."""

    grant_type: Literal["client_credentials"]
    client_id: str | None = None
    client_secret: str | None = None
    scope: str | None = None


class IntrospectionForm(Form):
    """RFC 7662, section 2.1."""

    token: str
    token_type_hint: str | None = None


class RevocationForm(Form):
    """RFC 7009, section 2.1; the two members of the client only without an Authorization header."""

    token: str
    token_type_hint: str | None = None
    client_id: str | None = None
    client_secret: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """One operation. What follows from its guard, its body or its database is left to `sentryagent_idp.api.openapi`."""

    answer: tuple[type[BaseModel], ...] = ()
    statuses: Sequence[int] = (200,)
    media_type: str = "application/json"
    body: type[models.Body] | None = None
    body_is_optional: bool = False
    form: type[Form] | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    headers: Sequence[str] = ()
    answer_headers: Sequence[str] = ()
    refusals: Sequence[Refusal] = ()
    credentials: Sequence[str] = ()
    needs_database: bool = True
    example: Mapping[str, Any] | None = None


_AGENT = (errors.AgentNotFound, errors.AgentDecommissioned)
_CREDENTIAL = (*_AGENT, errors.CredentialNotFound)
_SOME_AGENT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
_POLICY_EXAMPLE = {
    "repository": "octo-org/hello-agent",
    "branch": "main",
    "agentId": _SOME_AGENT,
    "scopes": ["agents:read"],
}
_CLAIMS_EXAMPLE = {
    "repository": "octo-org/hello-agent",
    "repository_id": "123456789",
    "repository_owner_id": "1234567",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "event_name": "push",
}

DESCRIPTIONS: Mapping[str, Description] = {
    "exchange.exchange": Description(
        answer=(answers.ExchangedToken, answers.DryRun),
        body=models.ExchangeBody,
        form=ExchangeForm,
        example={"token": "<GitHub's ID token>", "agentId": _SOME_AGENT, "expiresIn": 600},
        refusals=(
            errors.InvalidOidcToken,
            errors.IdentityChanged,
            errors.BranchNotPermitted,
            errors.TrustPolicyViolation,
            errors.AgentNotTrusted,
            errors.ScopeNotPermitted,
            errors.RateLimited,
            errors.IssuerUnavailable,
            errors.UnsupportedGrantType,
            errors.InvalidTarget,
        ),
    ),
    "exchange.audience": Description(answer=(answers.Audience,), needs_database=False),
    "tokens.issue": Description(
        answer=(answers.ClientToken,),
        form=ClientForm,
        credentials=("client", ""),
        example={"grant_type": tokens.GRANT_TYPE, "scope": "agents:read"},
        refusals=(
            errors.InvalidClient,
            errors.UnsupportedGrantType,
            errors.ScopeNotPermitted,
            errors.RateLimited,
        ),
    ),
    "tokens.introspect": Description(answer=(answers.Active, answers.Inactive), form=IntrospectionForm),
    "tokens.revoke": Description(
        media_type="",
        form=RevocationForm,
        credentials=("bearer", "client", ""),
        refusals=(errors.Unauthorized, errors.Forbidden, errors.InvalidClient, errors.RateLimited),
    ),
    "trust_policies.create": Description(
        answer=(answers.Policy,),
        statuses=(201,),
        body=models.PolicyBody,
        answer_headers=("Location", "ETag"),
        refusals=(*_AGENT, errors.TrustPolicyAlreadyExists),
        example=_POLICY_EXAMPLE,
    ),
    "trust_policies.simulate": Description(
        answer=(answers.Simulated,),
        body=models.SimulationBody,
        refusals=(errors.IssuerUnavailable,),
        example={"claims": _CLAIMS_EXAMPLE, "agentId": _SOME_AGENT},
    ),
    "trust_policies.list_policies": Description(
        answer=(answers.Policies,),
        query={"provider": _TEXT, "repository": _TEXT, "agentId": _ID, **_PAGING},
    ),
    "trust_policies.read": Description(
        answer=(answers.Policy,), answer_headers=("ETag",), refusals=(errors.TrustPolicyNotFound,)
    ),
    "trust_policies.replace": Description(
        answer=(answers.Policy,),
        body=models.StoredPolicyBody,
        headers=("If-Match",),
        answer_headers=("ETag",),
        refusals=(
            *_AGENT,
            errors.TrustPolicyNotFound,
            errors.TrustPolicyAlreadyExists,
            errors.TrustPolicyDerived,
            errors.PreconditionFailed,
        ),
        example=_POLICY_EXAMPLE,
    ),
    "trust_policies.delete": Description(
        statuses=(204,),
        media_type="",
        headers=("If-Match",),
        refusals=(errors.TrustPolicyNotFound, errors.PreconditionFailed),
    ),
    "agents.register": Description(
        answer=(answers.Agent,),
        statuses=(201,),
        body=models.NewAgent,
        answer_headers=("Location",),
        refusals=(errors.AgentAlreadyExists,),
        example={
            "email": "release-bot@octo-org.example",
            "agentType": "custom",
            "capabilities": ["ci:run"],
        },
    ),
    "agents.list_agents": Description(
        answer=(answers.Agents,),
        query={
            "owner": _TEXT,
            "agentType": {"type": "string", "enum": list(AGENT_TYPES)},
            "status": {"type": "string", "enum": [status.value for status in AgentStatus]},
            "email": _TEXT,
            **_PAGING,
        },
    ),
    "agents.read": Description(answer=(answers.Agent,), refusals=(errors.AgentNotFound,)),
    "agents.update": Description(
        answer=(answers.Agent,),
        body=models.AgentChanges,
        refusals=(*_AGENT, errors.AgentAlreadyExists),
        example={"version": "1.1.0"},
    ),
    "agents.decommission": Description(statuses=(204,), media_type="", refusals=_AGENT),
    "agents.generate_credential": Description(
        answer=(answers.NewSecret,),
        statuses=(201,),
        body=models.NewCredential,
        body_is_optional=True,
        refusals=(*_AGENT, errors.TooManyCredentials, errors.RateLimited),
        example={"expiresAt": "2027-01-31T12:00:00Z"},
    ),
    "agents.list_credentials": Description(
        answer=(answers.Credentials,), query=_PAGING, refusals=(errors.AgentNotFound,)
    ),
    "agents.rotate_credential": Description(
        answer=(answers.NewSecret,), refusals=(*_CREDENTIAL, errors.RateLimited)
    ),
    "agents.revoke_credential": Description(statuses=(204,), media_type="", refusals=_CREDENTIAL),
    "audit.list_audit": Description(
        answer=(answers.Audit,),
        query={
            **dict.fromkeys(("action", "outcome", "actor", "repository", "requestId", "address"), _TEXT),
            **dict.fromkeys(("eventId", "agentId", "policyId", "after"), _ID),
            **dict.fromkeys(("from", "to"), _TIME),
            "policyVersion": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
            **_PAGING,
        },
    ),
    "audit.verify_audit": Description(answer=(answers.AuditProof,), refusals=(errors.RateLimited,)),
    "well_known.keys": Description(answer=(answers.KeySet,)),
    "well_known.authorization_server": Description(answer=(answers.Metadata,), needs_database=False),
    "well_known.openid_configuration": Description(answer=(answers.Metadata,)),
    "operations.health": Description(answer=(answers.Health,), needs_database=False),
    "operations.ready": Description(answer=(answers.Readiness,), statuses=(200, 503), needs_database=False),
    "operations.metrics": Description(media_type="text/plain", needs_database=False),
    "documentation.openapi": Description(needs_database=False),
    "documentation.docs": Description(media_type="text/html", needs_database=False),
}
"""By the name of the view, as `url_for` takes it."""
