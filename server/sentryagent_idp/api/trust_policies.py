"""`/oidc/trust-policies`: which workflow runs may act as which agent."""

from typing import Any
from uuid import UUID

from flask import Blueprint, Response, url_for

from sentryagent_idp import errors
from sentryagent_idp.api import responses
from sentryagent_idp.api.description import BOOLEAN, EXAMPLE_AGENT, ID, PAGING, TEXT, TIME, Description
from sentryagent_idp.api.guards import caller, requires
from sentryagent_idp.api.models import (
    Claims,
    PolicyBody,
    SimulatedRun,
    SimulationBody,
    StoredPolicyBody,
)
from sentryagent_idp.api.requests import (
    check_has_agent,
    context,
    expected_versions,
    parse_uuid,
    read_json,
    read_query,
)
from sentryagent_idp.api.responses import listed
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.concurrency.loop import LARGE_BODY_BYTES
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.conditions import DECLARED, Conditions
from sentryagent_idp.domain.records import policy_record
from sentryagent_idp.domain.service import ServiceGrant
from sentryagent_idp.domain.trust_policy import PolicyFilter, TrustPolicy
from sentryagent_idp.use_cases.simulation import HypotheticalRun, Simulated
from sentryagent_idp.use_cases.trust_policies import PolicyDraft

bp = Blueprint("trust_policies", __name__)

_COLLECTION = "/oidc/trust-policies"
_ITEM = f"{_COLLECTION}/<policy_id>"
_EXPLICIT_NULLS = ("repositoryId", "repositoryOwnerId", "derivedFrom")

_NO_AGENT = (errors.AgentNotFound, errors.AgentDecommissioned)
_POLICY_EXAMPLE = {
    "repository": "octo-org/hello-agent",
    "branch": "main",
    "agentId": EXAMPLE_AGENT,
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


@bp.post(_COLLECTION)
@Description(
    (responses.Policy,),
    statuses=(201,),
    body=PolicyBody,
    response_headers=("Location", "ETag"),
    refusals=(*_NO_AGENT, errors.TrustPolicyAlreadyExists),
    example=_POLICY_EXAMPLE,
)
@requires(scopes.POLICIES_WRITE)
def create() -> Response:
    """Create a policy.

    Without `agentId` it is a bootstrap policy, which gives `agents:write`; creating one requires that scope, too.
    """
    body, _ = read_json(PolicyBody)
    policy = use_cases().policies.create(caller(), _draft(body), context())
    return _tagged(policy, 201, Location=url_for("trust_policies.read", policy_id=policy.id))


@bp.post(f"{_COLLECTION}/simulate")
@Description(
    (Simulated, responses.Simulations),
    body=SimulationBody,
    refusals=(errors.IssuerUnavailable,),
    example={"claims": _CLAIMS_EXAMPLE, "agentId": EXAMPLE_AGENT},
)
@requires(scopes.POLICIES_READ)
def simulate() -> Simulated | responses.Simulations:
    """Simulate the exchange's decision, without using up or issuing a token.

    For `runs` (at most 100), `data` has the decision on each, in the same order. The body may have up to 1 MiB.
    """
    body, _ = read_json(SimulationBody, limit=LARGE_BODY_BYTES)
    if [body.claims, body.token, body.runs].count(None) != 2:
        raise errors.ValidationFailed("claims", "send exactly one of claims, token and runs")
    if body.runs is not None:
        return {"data": _simulate_all(body, body.runs)}
    check_has_agent(body.resource, body.agent_id)
    if body.claims is not None:
        return use_cases().simulation.simulate_runs([_run(body, body.claims)])[0]
    return use_cases().simulation.simulate_token(body.token or "", body.agent_id, body.resource)


def _simulate_all(body: SimulationBody, runs: list[SimulatedRun]) -> list[Simulated]:
    """Decide on each run; raises `ValidationFailed` naming the run."""
    for name, value in (("agentId", body.agent_id), ("resource", body.resource)):
        if value is not None:
            raise errors.ValidationFailed(name, "set it in each of the runs")
    for index, run in enumerate(runs):
        check_has_agent(run.resource, run.agent_id, field=f"runs.{index}.agentId")
    return use_cases().simulation.simulate_runs([_run(run, run.claims) for run in runs])


def _run(body: SimulationBody | SimulatedRun, claims: Claims) -> HypotheticalRun:
    return HypotheticalRun(claims.model_dump(exclude_none=True), body.agent_id, body.resource)


@bp.get(_COLLECTION)
@Description(
    (responses.Policies,),
    query={
        **dict.fromkeys(
            ("provider", "issuer", "owner", "repository", "repositoryId", "service", "search"), TEXT
        ),
        **dict.fromkeys(("agentId", "derivedFrom"), ID),
        **dict.fromkeys(("bootstrap", "enabled", "expired"), BOOLEAN),
        **dict.fromkeys(("unusedSince", "expiresBefore"), TIME),
        **PAGING,
    },
)
@requires(scopes.POLICIES_READ)
def list_policies() -> dict[str, Any]:
    """List trust policies.

    `search` matches part of the repository's name or of the description. For `unusedSince`, a policy that was never
    used counts as last used when it was created.
    """
    query, paging = read_query()
    return listed(use_cases().policies.page(PolicyFilter(**query), **paging), policy_record, **paging)


@bp.get(_ITEM)
@Description(
    (responses.Policy,),
    headers=("If-None-Match",),
    response_headers=("ETag",),
    refusals=(errors.TrustPolicyNotFound,),
)
@requires(scopes.POLICIES_READ)
def read(policy_id: str) -> Response:
    """Get a policy."""
    return _tagged(use_cases().policies.get(_policy_id(policy_id)))


@bp.put(_ITEM)
@Description(
    (responses.Policy,),
    body=StoredPolicyBody,
    headers=("If-Match",),
    response_headers=("ETag",),
    refusals=(
        *_NO_AGENT,
        errors.TrustPolicyNotFound,
        errors.TrustPolicyAlreadyExists,
        errors.TrustPolicyDerived,
        errors.PreconditionFailed,
    ),
    example=_POLICY_EXAMPLE,
)
@requires(scopes.POLICIES_WRITE)
def replace(policy_id: str) -> Response:
    """Replace a policy.

    A derived policy is changed through its origin; `derivedFrom: null` detaches it. Requires the same scopes as creation.
    """
    identifier = _policy_id(policy_id)
    body, nulls = read_json(StoredPolicyBody, explicit_nulls=_EXPLICIT_NULLS)
    if body.id not in {None, identifier}:
        raise errors.ValidationFailed("id", "it differs from the id in the path; a policy keeps its id")
    draft = _draft(body, nulls)
    policy = use_cases().policies.replace(
        caller(), identifier, draft, context(), expected_versions=expected_versions()
    )
    return _tagged(policy)


@bp.delete(_ITEM)
@Description(
    statuses=(204,),
    media_type="",
    headers=("If-Match",),
    refusals=(errors.TrustPolicyNotFound, errors.PreconditionFailed),
)
@requires(scopes.POLICIES_WRITE)
def delete(policy_id: str) -> tuple[str, int]:
    """Delete a policy and all policies derived from it."""
    use_cases().policies.delete(
        caller(), _policy_id(policy_id), context(), expected_versions=expected_versions()
    )
    return "", 204


def _draft(body: PolicyBody, nulls: frozenset[str] = frozenset()) -> PolicyDraft:
    values = {name: _plain(getattr(body, name)) for name in PolicyBody.model_fields if name != "grants"}
    conditions = Conditions(**{name: values.pop(name) for name in DECLARED})
    grants = tuple(ServiceGrant(grant.service, tuple(grant.scopes)) for grant in body.grants)
    return PolicyDraft(conditions=conditions, grants=grants, nulls=nulls, **values)


def _plain(value: Any) -> Any:
    """Convert a value for the domain: a list becomes a tuple without duplicates."""
    if isinstance(value, dict):
        return {name: _plain(entries) for name, entries in value.items()}
    return tuple(dict.fromkeys(value)) if isinstance(value, list) else value


def _policy_id(text: str) -> UUID:
    return parse_uuid(text, errors.TrustPolicyNotFound("There is no trust policy with this id."))


def _tagged(policy: TrustPolicy, status: int = 200, **headers: str) -> Response:
    return responses.tagged(policy_record(policy), policy.version, status, **headers)
