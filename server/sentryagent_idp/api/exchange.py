"""`POST /oidc/token`, the exchange in JSON or as a form of RFC 8693, and `GET /oidc/audience`."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from flask import Blueprint, Response, request
from typing_extensions import TypedDict

from sentryagent_idp import errors
from sentryagent_idp.api.description import EXAMPLE_AGENT, Description
from sentryagent_idp.api.models import ExchangeBody, ExchangeForm
from sentryagent_idp.api.observation import mark_dry_run
from sentryagent_idp.api.requests import (
    FORM,
    check_grant_type,
    check_has_agent,
    context,
    limit_key,
    parse_uuid,
    read_form_with,
    read_json,
    scope_of,
)
from sentryagent_idp.api.responses import with_token
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.records import IdText, Positive, TimeText, timestamp
from sentryagent_idp.domain.service import URN_NAMESPACE, identifier_problem
from sentryagent_idp.runtime.addresses import is_loopback
from sentryagent_idp.use_cases.exchange import Exchanged, ExchangeRequest

bp = Blueprint("exchange", __name__)

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
AccessTokenType = Literal["urn:ietf:params:oauth:token-type:access_token"]
ACCESS_TOKEN_TYPE: AccessTokenType = "urn:ietf:params:oauth:token-type:access_token"
SUBJECT_TOKEN_TYPES = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")
AGENT_RESOURCE_PREFIX = f"{URN_NAMESPACE}agent:"
_TARGETS = ("resource", "audience")


class ExchangedToken(TypedDict):
    """The access token (RFC 8693, section 2.2.1); `expires_in` is in seconds."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: Positive
    expires_at: TimeText
    scope: str
    issued_token_type: AccessTokenType


class DryRun(TypedDict):
    """The result of a dry run: the ID token is not used up, no ids are pinned, and no access token is issued."""

    dryRun: Literal[True]
    allowed: Literal[True]
    scope: str
    expires_in: Positive
    policyId: IdText


class Audience(TypedDict):
    """The audience to request a GitHub ID token for."""

    audience: str


@bp.post("/oidc/token")
@Description(
    (ExchangedToken, DryRun),
    body=ExchangeBody,
    form=ExchangeForm,
    example={"token": "<GitHub's ID token>", "agentId": EXAMPLE_AGENT, "expiresIn": 600},
    refusals=(
        errors.InvalidOidcToken,
        errors.IdentityChanged,
        errors.BranchNotPermitted,
        errors.TrustPolicyViolation,
        errors.AgentNotTrusted,
        errors.ServiceNotPermitted,
        errors.ScopeNotPermitted,
        errors.RateLimited,
        errors.IssuerUnavailable,
        errors.UnsupportedGrantType,
        errors.InvalidTarget,
    ),
)
def exchange() -> Response:
    """Exchange a GitHub ID token for an access token; the ID token itself is the credential."""
    # Before any parsing, so that an address that floods costs one lookup per request.
    provider = use_cases()
    provider.address_limit.check(limit_key())
    wanted = (
        _from_form(*read_form_with(_TARGETS))
        if request.mimetype == FORM
        else _from_json(read_json(ExchangeBody)[0])
    )
    if wanted.dry_run:
        mark_dry_run()
    return with_token(_response(provider.exchange.run(wanted, context())))


@bp.get("/oidc/audience")
@Description((Audience,), needs_database=False)
def audience() -> Audience:
    """Get the `aud` that a GitHub ID token must have, so that clients need not configure it."""
    return {"audience": use_cases().oidc_audience}


def _from_json(body: ExchangeBody) -> ExchangeRequest:
    check_has_agent(body.resource, body.agent_id)
    return ExchangeRequest(
        unverified_token=body.token,
        agent_id=body.agent_id,
        resource=body.resource,
        scope=None if body.scope is None else scopes.parse(body.scope),
        expires_in=body.expires_in,
        dry_run=body.dry_run,
    )


def _from_form(form: dict[str, str], targets: dict[str, list[str]]) -> ExchangeRequest:
    """Read an exchange request from a form (RFC 8693, section 2.1)."""
    check_grant_type(form, GRANT_TYPE)
    _check_tokens(form)
    agent_id, resource = _targets(targets["resource"], targets["audience"])
    return ExchangeRequest(
        unverified_token=form["subject_token"],
        agent_id=agent_id,
        resource=resource,
        scope=scope_of(form, resource),
    )


def _check_tokens(form: dict[str, str]) -> None:
    if "subject_token" not in form:
        raise errors.ValidationFailed("subject_token", "it is missing; send GitHub's ID token")
    if form.get("subject_token_type") not in SUBJECT_TOKEN_TYPES:
        raise errors.ValidationFailed("subject_token_type", errors.choice_reason(SUBJECT_TOKEN_TYPES))
    # Ignoring it would turn the requested delegation into impersonation (RFC 8693, 1.1).
    if "actor_token" in form:
        raise errors.ValidationFailed("actor_token", "actor tokens are not supported; leave it out")
    if form.get("requested_token_type", ACCESS_TOKEN_TYPE) != ACCESS_TOKEN_TYPE:
        raise errors.ValidationFailed("requested_token_type", f"it must be {ACCESS_TOKEN_TYPE}")


def _targets(resources: Sequence[str], audiences: Sequence[str]) -> tuple[UUID | None, str | None]:
    """Return the requested agent and service: one `resource` names the agent, a second or `audience` the service.

    Raises `InvalidTarget` for several of either instead of picking one: a token has one audience (RFC 8707, 2).
    """
    agents = [name for name in resources if name.startswith(AGENT_RESOURCE_PREFIX)]
    if not agents and len(resources) > 1:
        raise errors.ValidationFailed("resource", "it is given more than once, and none names an agent")
    services = dict.fromkeys((*(name for name in resources if name not in agents), *audiences))
    if list(services) == [use_cases().tokens.token_audience] and audiences:
        services = {}
    if len(agents) > 1 or len(services) > 1:
        raise errors.InvalidTarget("A token is for one agent and one service; name one of each.")
    service = next(iter(services), None)
    _check_target(service)
    agent_id = _agent_of(agents[0]) if agents else None
    if service is not None and agent_id is None:
        raise errors.ValidationFailed(
            "resource",
            f"a token for a service requires an agent; name it as {AGENT_RESOURCE_PREFIX}<agentId>",
        )
    return agent_id, service


def _check_target(service: str | None) -> None:
    if service is None:
        return
    if identifier_problem(service, is_loopback) or service.startswith(URN_NAMESPACE):
        raise errors.InvalidTarget(
            f"resource must be {AGENT_RESOURCE_PREFIX}<agentId>, and audience or a second resource the identifier "
            "of a service; leave them out for a bootstrap token."
        )


def _agent_of(resource: str) -> UUID:
    absent = errors.InvalidTarget(
        f"resource must be {AGENT_RESOURCE_PREFIX}<agentId>; leave it out for a bootstrap token."
    )
    return parse_uuid(resource.removeprefix(AGENT_RESOURCE_PREFIX), absent)


def _response(result: Exchanged) -> ExchangedToken | DryRun:
    scope = scopes.render(result.scope)
    if result.access_token is None:
        return {
            "dryRun": True,
            "allowed": True,
            "scope": scope,
            "expires_in": result.expires_in,
            "policyId": str(result.policy_id),
        }
    return {
        "access_token": result.access_token,
        "token_type": "Bearer",
        "expires_in": result.expires_in,
        "expires_at": timestamp(result.expires_at),
        "scope": scope,
        "issued_token_type": ACCESS_TOKEN_TYPE,
    }
