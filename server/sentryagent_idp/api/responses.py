"""The forms of responses that resources share; the others stand beside the functions that make them.

Nothing is validated by these on its way out: tests hold every response against them.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from flask import Response, jsonify
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from sentryagent_idp.api.models import Scope
from sentryagent_idp.domain import records
from sentryagent_idp.domain.policy_syntax import RunnerEnvironment, Visibility
from sentryagent_idp.domain.records import IdText, Page

Item = TypeVar("Item")


class Problem(TypedDict):
    """A refusal: a code for programs, a sentence that tells what to do, and the id of the audit record and the log."""

    code: str
    message: str
    details: dict[str, Any]
    requestId: IdText


class OauthError(TypedDict):
    """A refusal in the shape of RFC 6749, section 5.2; the description starts with the code of the other shape."""

    error: str
    error_description: str


class Model(BaseModel):
    """The schema of a response that is made as a plain `dict`: fields in camelCase, each of them always there."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Policy(Model):
    """A trust policy."""

    id: UUID
    provider: Literal["github"]
    issuer: str
    repository: str
    repository_id: str | None
    repository_owner_id: str | None
    agent_id: UUID | None
    branch: str | None
    tag: str | None
    environment: str | None
    workflow: str | None
    called_workflow: str | None
    actor_ids: list[str] | None
    runner_environment: RunnerEnvironment | None
    visibility: Visibility | None
    events: list[str] | None
    scopes: list[Scope]
    max_ttl: int | None
    trust_registered: bool
    derived_from: UUID | None
    enabled: bool
    expires_at: datetime | None
    description: str | None
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None
    version: int = Field(ge=1)


class Listed(Model, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    total: int = Field(ge=0)
    page: int = Field(ge=1)
    limit: int = Field(ge=1, le=100)


class Policies(Listed[Policy]):
    """One page of the policies."""


class Agents(Listed[records.Agent]):
    """One page of the agents that the caller may see."""


class Credentials(Listed[records.Credential]):
    """One page of an agent's credentials."""


class Audit(Listed[records.AuditEntry]):
    """One page of the audit, newest first."""


def created(record: Mapping[str, Any], location: str) -> Response:
    """201 with the record and where it can be read."""
    response = jsonify(record)
    response.status_code = 201
    response.headers["Location"] = location
    return response


def listed(
    found: Page[Item], record: Callable[[Item], Mapping[str, Any]], page: int, limit: int
) -> dict[str, Any]:
    """One page of a list."""
    return {"data": [record(item) for item in found.data], "total": found.total, "page": page, "limit": limit}


def with_token(body: Mapping[str, Any]) -> Response:
    """A response that issues a token, which no cache may keep (RFC 6749, 5.1)."""
    response = jsonify(body)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"
    return response
