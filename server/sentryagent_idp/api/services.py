"""`/services`: the resource servers that accept our tokens, and the scopes that a token for each may have."""

from typing import Annotated, Any
from uuid import UUID

from flask import Blueprint, Response, url_for
from pydantic import Field

from sentryagent_idp import errors
from sentryagent_idp.api.description import PAGING, TEXT, Description
from sentryagent_idp.api.fields import Body, DescriptionText, Identifier, Lifetime, ScopeName, rule
from sentryagent_idp.api.guards import caller, requires
from sentryagent_idp.api.requests import context, expected_versions, parse_uuid, read_json, read_query
from sentryagent_idp.api.responses import Listed, listed, tagged
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.records import RegisteredService, service_record
from sentryagent_idp.domain.service import MAX_SCOPES, Service, ServiceFilter, ServiceScope, scopes_problem
from sentryagent_idp.use_cases.services import ServiceDraft

bp = Blueprint("services", __name__)

_COLLECTION = "/services"
_ITEM = f"{_COLLECTION}/<service_id>"

_EXAMPLE = {
    "identifier": "https://deploy.example.com",
    "scopes": [{"name": "deploy:production", "description": "Deploy to production"}],
    "maxTtl": 600,
}


class ScopeOfService(Body):
    """A scope of a service, and what it allows there."""

    name: ScopeName
    description: DescriptionText | None = None


_Scopes = Annotated[
    list[ScopeOfService],
    Field(min_length=1, max_length=MAX_SCOPES),
    rule(lambda written: scopes_problem([scope.name for scope in written])),
]


class _ServiceBody(Body):
    """The fields of a service that an admin sets; `maxTtl` is in seconds."""

    identifier: Identifier | None = None
    description: DescriptionText | None = None
    scopes: _Scopes
    max_ttl: Lifetime | None = None


class NewService(_ServiceBody):
    """`POST /services`."""

    identifier: Identifier


class StoredServiceBody(_ServiceBody):
    """`PUT /services/{serviceId}`: the response to a GET may be sent back; the server's own fields are ignored."""

    service_id: Any = None
    created_at: Any = None
    updated_at: Any = None
    version: Any = None


class Services(Listed[RegisteredService]):
    """A page of services."""


@bp.post(_COLLECTION)
@Description(
    (RegisteredService,),
    statuses=(201,),
    body=NewService,
    response_headers=("Location", "ETag"),
    refusals=(errors.ServiceAlreadyExists,),
    example=_EXAMPLE,
)
@requires(scopes.SERVICES_WRITE)
def create() -> Response:
    """Create a service."""
    body, _ = read_json(NewService)
    service = use_cases().services.create(caller(), body.identifier, _draft(body), context())
    return _tagged(service, 201, Location=url_for("services.read", service_id=service.service_id))


@bp.get(_COLLECTION)
@Description((Services,), query={"identifier": TEXT, **PAGING})
@requires(scopes.SERVICES_READ)
def list_services() -> dict[str, Any]:
    """List services."""
    query, paging = read_query()
    return listed(use_cases().services.page(ServiceFilter(**query), **paging), service_record, **paging)


@bp.get(_ITEM)
@Description(
    (RegisteredService,),
    headers=("If-None-Match",),
    response_headers=("ETag",),
    refusals=(errors.ServiceNotFound,),
)
@requires(scopes.SERVICES_READ)
def read(service_id: str) -> Response:
    """Get a service."""
    return _tagged(use_cases().services.get(_service_id(service_id)))


@bp.put(_ITEM)
@Description(
    (RegisteredService,),
    body=StoredServiceBody,
    headers=("If-Match",),
    response_headers=("ETag",),
    refusals=(errors.ServiceNotFound, errors.ServiceInUse, errors.PreconditionFailed),
    example=_EXAMPLE,
)
@requires(scopes.SERVICES_WRITE)
def replace(service_id: str) -> Response:
    """Replace a service.

    Its identifier never changes, and a scope that a trust policy grants cannot be removed.
    """
    identifier = _service_id(service_id)
    body, _ = read_json(StoredServiceBody)
    service = use_cases().services.replace(
        caller(), identifier, _draft(body), context(), expected_versions=expected_versions()
    )
    return _tagged(service)


@bp.delete(_ITEM)
@Description(
    statuses=(204,),
    media_type="",
    headers=("If-Match",),
    refusals=(errors.ServiceNotFound, errors.ServiceInUse, errors.PreconditionFailed),
)
@requires(scopes.SERVICES_WRITE)
def delete(service_id: str) -> tuple[str, int]:
    """Delete a service, if no trust policy grants it and no client is bound to it."""
    use_cases().services.delete(
        caller(), _service_id(service_id), context(), expected_versions=expected_versions()
    )
    return "", 204


def _draft(body: NewService | StoredServiceBody) -> ServiceDraft:
    scopes_of_service = tuple(ServiceScope(scope.name, scope.description) for scope in body.scopes)
    return ServiceDraft(body.identifier, body.description, scopes_of_service, body.max_ttl)


def _service_id(text: str) -> UUID:
    return parse_uuid(text, errors.ServiceNotFound("There is no service with this id."))


def _tagged(service: Service, status: int = 200, **headers: str) -> Response:
    return tagged(service_record(service), service.version, status, **headers)
