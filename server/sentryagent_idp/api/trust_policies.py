"""`/oidc/trust-policies`: which run of which repository may act as which agent."""

import re
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, jsonify, request, url_for

from sentryagent_idp.api.guards import caller, requires
from sentryagent_idp.api.models import PolicyBody, SimulationBody, StoredPolicyBody
from sentryagent_idp.api.requests import (
    context,
    page_and_limit,
    parse_uuid,
    read_json,
    read_query,
    uuid_filter,
)
from sentryagent_idp.api.responses import created, listed
from sentryagent_idp.api.use_cases import services
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.conditions import DECLARED, Conditions
from sentryagent_idp.domain.records import policy_record
from sentryagent_idp.domain.trust_policy import TrustPolicy
from sentryagent_idp.errors import TrustPolicyNotFound, ValidationFailed
from sentryagent_idp.ports import PolicyFilter
from sentryagent_idp.use_cases.trust_policies import PolicyDraft

bp = Blueprint("trust_policies", __name__)

_COLLECTION = "/oidc/trust-policies"
_ITEM = f"{_COLLECTION}/<policy_id>"
_EXPLICIT_NULLS = ("repositoryId", "repositoryOwnerId", "derivedFrom")
_ETAG = re.compile(r'"([0-9]{1,10})"', re.ASCII)


@bp.post(_COLLECTION)
@requires(scopes.POLICIES_WRITE)
def create() -> Response:
    """Create a policy.

    Without `agentId` it is a bootstrap policy, which gives `agents:write`: writing one needs that scope too.
    """
    body, _ = read_json(PolicyBody)
    policy = services().policies.create(caller(), _draft(body), context())
    response = created(policy_record(policy), url_for("trust_policies.read", policy_id=policy.id))
    return _tagged(response, policy)


@bp.post(f"{_COLLECTION}/simulate")
@requires(scopes.POLICIES_READ)
def simulate() -> dict[str, Any]:
    """What the exchange would decide, with nothing burnt or issued."""
    body, _ = read_json(SimulationBody)
    if (body.claims is None) == (body.token is None):
        raise ValidationFailed("claims", "send either claims or a token")
    if body.claims is not None:
        return services().simulation.of_claims(body.claims.model_dump(exclude_none=True), body.agent_id)
    return services().simulation.of_token(body.token or "", body.agent_id)


@bp.get(_COLLECTION)
@requires(scopes.POLICIES_READ)
def list_policies() -> dict[str, Any]:
    """The policies."""
    query = read_query({"page", "limit", "provider", "repository", "agentId"})
    page, limit = page_and_limit(query)
    wanted = PolicyFilter(query.get("provider"), query.get("repository"), uuid_filter(query, "agentId"))
    return listed(services().policies.page(wanted, page=page, limit=limit), policy_record, page, limit)


@bp.get(_ITEM)
@requires(scopes.POLICIES_READ)
def read(policy_id: str) -> Response:
    """One policy."""
    return _answer(services().policies.get(_policy_id(policy_id)))


@bp.put(_ITEM)
@requires(scopes.POLICIES_WRITE)
def replace(policy_id: str) -> Response:
    """Replace a policy whole.

    A derived policy is changed through its origin; `derivedFrom: null` detaches it. Rights as for a new policy.
    """
    identifier = _policy_id(policy_id)
    body, nulls = read_json(StoredPolicyBody, explicit_nulls=_EXPLICIT_NULLS)
    if body.id not in {None, identifier}:
        raise ValidationFailed("id", "it differs from the id in the path; a policy keeps its id")
    draft = _draft(body, nulls)
    policy = services().policies.replace(
        caller(), identifier, draft, context(), expected_versions=_expected_versions()
    )
    return _answer(policy)


@bp.delete(_ITEM)
@requires(scopes.POLICIES_WRITE)
def delete(policy_id: str) -> tuple[str, int]:
    """Delete a policy and those derived from it."""
    services().policies.delete(
        caller(), _policy_id(policy_id), context(), expected_versions=_expected_versions()
    )
    return "", 204


def _draft(body: PolicyBody, nulls: frozenset[str] = frozenset()) -> PolicyDraft:
    return PolicyDraft(
        provider=body.provider,
        repository=body.repository,
        conditions=Conditions(**{name: _condition(getattr(body, name)) for name in DECLARED}),
        agent_id=body.agent_id,
        repository_id=body.repository_id,
        repository_owner_id=body.repository_owner_id,
        scopes=tuple(dict.fromkeys(body.scopes)),
        max_ttl=body.max_ttl,
        trust_registered=body.trust_registered,
        enabled=body.enabled,
        expires_at=body.expires_at,
        description=body.description,
        nulls=nulls,
    )


def _condition(value: Any) -> Any:
    """The value of a condition as the domain has it: of a list each entry once."""
    if isinstance(value, dict):
        return {name: _condition(entries) for name, entries in value.items()}
    return tuple(dict.fromkeys(value)) if isinstance(value, list) else value


def _policy_id(text: str) -> UUID:
    return parse_uuid(text, TrustPolicyNotFound("There is no trust policy with this id."))


def _answer(policy: TrustPolicy) -> Response:
    return _tagged(jsonify(policy_record(policy)), policy)


def _tagged(response: Response, policy: TrustPolicy) -> Response:
    response.headers["ETag"] = f'"{policy.version}"'
    return response


def _expected_versions() -> list[int] | None:
    """The versions in `If-Match` (RFC 9110, 13.1.1); `None` where any will do. A weak tag matches nothing."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    tags = (_ETAG.fullmatch(tag.strip()) for tag in header.split(","))
    return [int(tag.group(1)) for tag in tags if tag]
