"""`/agents`: the agent registry and the agents' client secrets."""

from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Blueprint, url_for
from pydantic import AfterValidator, Field

from sentryagent_idp import errors
from sentryagent_idp.api.description import PAGING, TEXT, Description, choice
from sentryagent_idp.api.fields import (
    AgentType,
    Body,
    Capabilities,
    DeploymentEnv,
    DescriptionText,
    Email,
    Moment,
    Owner,
    Version,
)
from sentryagent_idp.api.guards import caller, requires
from sentryagent_idp.api.requests import context, has_body, parse_uuid, read_json, read_query
from sentryagent_idp.api.responses import Listed, listed
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.domain import records, scopes
from sentryagent_idp.domain.agent import AGENT_TYPES, AgentFilter, AgentStatus, Credential

bp = Blueprint("agents", __name__)

_ITEM = "/agents/<agent_id>"
_CREDENTIALS = f"{_ITEM}/credentials"
_CREDENTIAL = f"{_CREDENTIALS}/<credential_id>"

_NO_AGENT = (errors.AgentNotFound, errors.AgentDecommissioned)
_Secret = tuple[records.NewSecret, int, dict[str, str]]
_NO_CREDENTIAL = (*_NO_AGENT, errors.CredentialNotFound)


class NewAgent(Body):
    """`POST /agents`."""

    email: Email
    description: DescriptionText | None = None
    agent_type: AgentType = "custom"
    version: Version = "1.0.0"
    capabilities: Capabilities = Field(["ci:run"], validate_default=True)
    owner: Owner | None = None
    deployment_env: DeploymentEnv = "production"


def _status(text: str) -> AgentStatus:
    # pydantic cannot call the class itself as a validator: since Python 3.12 its signature is `*values`.
    return AgentStatus(text)


class AgentChanges(Body):
    """`PATCH /agents/{agentId}`: only the fields that are present change."""

    email: Email | None = None
    description: DescriptionText | None = None
    agent_type: AgentType | None = None
    version: Version | None = None
    capabilities: Capabilities | None = None
    owner: Owner | None = None
    deployment_env: DeploymentEnv | None = None
    status: Annotated[Literal["active", "suspended"], AfterValidator(_status)] | None = None


class NewCredential(Body):
    """`POST /agents/{agentId}/credentials`."""

    expires_at: Moment | None = None


class Agents(Listed[records.Agent]):
    """A page of the agents that the caller may see."""


class Credentials(Listed[records.Credential]):
    """A page of an agent's credentials."""


@bp.post("/agents")
@Description(
    (records.Agent,),
    statuses=(201,),
    body=NewAgent,
    response_headers=("Location",),
    refusals=(errors.AgentAlreadyExists,),
    example={"email": "release-bot@octo-org.example", "agentType": "custom", "capabilities": ["ci:run"]},
)
@requires(scopes.AGENTS_WRITE)
def register() -> tuple[records.Agent, int, dict[str, str]]:
    """Register an agent."""
    body, _ = read_json(NewAgent)
    fields = {**dict(body), "capabilities": tuple(body.capabilities)}
    agent = use_cases().registration.register(caller(), fields, context())
    location = url_for("agents.read", agent_id=agent.agent_id)
    return records.agent_record(agent), 201, {"Location": location}


@bp.get("/agents")
@Description(
    (Agents,),
    query={
        "owner": TEXT,
        "agentType": choice(AGENT_TYPES),
        "status": choice(tuple(AgentStatus)),
        "email": TEXT,
        **PAGING,
    },
)
@requires(scopes.AGENTS_READ)
def list_agents() -> dict[str, Any]:
    """List the agents that the caller may see."""
    query, paging = read_query()
    found = use_cases().registration.page(caller(), AgentFilter(**query), **paging)
    return listed(found, records.agent_record, **paging)


@bp.get(_ITEM)
@Description((records.Agent,), refusals=(errors.AgentNotFound,))
@requires(scopes.AGENTS_READ)
def read(agent_id: str) -> records.Agent:
    """Get an agent."""
    return records.agent_record(use_cases().registration.get(caller(), _agent_id(agent_id)))


@bp.patch(_ITEM)
@Description(
    (records.Agent,),
    body=AgentChanges,
    refusals=(*_NO_AGENT, errors.AgentAlreadyExists),
    example={"version": "1.1.0"},
)
@requires(scopes.AGENTS_WRITE)
def update(agent_id: str) -> records.Agent:
    """Change some fields of an agent."""
    identifier = _agent_id(agent_id)
    body, _ = read_json(AgentChanges)
    fields = {name: value for name, value in body if value is not None}
    return records.agent_record(use_cases().registration.update(caller(), identifier, fields, context()))


@bp.delete(_ITEM)
@Description(statuses=(204,), media_type="", refusals=_NO_AGENT)
@requires(scopes.AGENTS_WRITE)
def decommission(agent_id: str) -> tuple[str, int]:
    """Decommission an agent permanently."""
    use_cases().registration.decommission(caller(), _agent_id(agent_id), context())
    return "", 204


@bp.post(_CREDENTIALS)
@Description(
    (records.NewSecret,),
    statuses=(201,),
    body=NewCredential,
    body_is_optional=True,
    refusals=(*_NO_AGENT, errors.TooManyCredentials, errors.RateLimited),
    example={"expiresAt": "2027-01-31T12:00:00Z"},
)
@requires(scopes.AGENTS_WRITE)
def generate_credential(agent_id: str) -> _Secret:
    """Create a client secret, which is shown only once."""
    identifier = _agent_id(agent_id)
    expires_at = read_json(NewCredential)[0].expires_at if has_body() else None
    credential, secret = use_cases().credentials.generate(caller(), identifier, expires_at, context())
    return _with_secret(credential, secret, 201)


@bp.get(_CREDENTIALS)
@Description((Credentials,), query=PAGING, refusals=(errors.AgentNotFound,))
@requires(scopes.AGENTS_WRITE)
def list_credentials(agent_id: str) -> dict[str, Any]:
    """List the agent's credentials, without secrets."""
    _, paging = read_query()
    found = use_cases().credentials.page(caller(), _agent_id(agent_id), **paging)
    return listed(found, records.credential_record, **paging)


@bp.post(f"{_CREDENTIAL}/rotate")
@Description((records.NewSecret,), refusals=(*_NO_CREDENTIAL, errors.RateLimited))
@requires(scopes.AGENTS_WRITE)
def rotate_credential(agent_id: str, credential_id: str) -> _Secret:
    """Give a credential a new secret; the old secret is refused at once."""
    credential, secret = use_cases().credentials.rotate(
        caller(), _agent_id(agent_id), _credential_id(credential_id), context()
    )
    return _with_secret(credential, secret, 200)


@bp.delete(_CREDENTIAL)
@Description(statuses=(204,), media_type="", refusals=_NO_CREDENTIAL)
@requires(scopes.AGENTS_WRITE)
def revoke_credential(agent_id: str, credential_id: str) -> tuple[str, int]:
    """Revoke a credential."""
    use_cases().credentials.revoke(caller(), _agent_id(agent_id), _credential_id(credential_id), context())
    return "", 204


def _with_secret(credential: Credential, secret: str, status: int) -> _Secret:
    record: records.NewSecret = {**records.credential_record(credential), "clientSecret": secret}
    return record, status, {"Cache-Control": "no-store"}


def _agent_id(text: str) -> UUID:
    return parse_uuid(text, errors.AgentNotFound("There is no agent with this id that this token may see."))


def _credential_id(text: str) -> UUID:
    return parse_uuid(text, errors.CredentialNotFound("The agent has no live credential with this id."))
