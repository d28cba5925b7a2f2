"""`GET /audit`: what happened, newest first; `GET /audit/verify`: whether it was changed since."""

from typing import Any

from flask import Blueprint

from sentryagent_idp import errors
from sentryagent_idp.api import responses
from sentryagent_idp.api.description import ID, PAGING, TEXT, TIME, Description, Parameter, integer
from sentryagent_idp.api.guards import requires
from sentryagent_idp.api.requests import read_query
from sentryagent_idp.api.responses import listed
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.audit import AuditFilter
from sentryagent_idp.domain.records import audit_entry
from sentryagent_idp.runtime.addresses import canonical
from sentryagent_idp.use_cases.sealing import AuditProof

bp = Blueprint("audit", __name__)

_RANGE = {"from": "start", "to": "end"}


@bp.get("/audit")
@Description(
    (responses.Audit,),
    query={
        **dict.fromkeys(("action", "outcome", "actor", "repository", "requestId"), TEXT),
        "address": Parameter(TEXT.schema, canonical),
        **dict.fromkeys(("eventId", "agentId", "policyId", "after"), ID),
        **dict.fromkeys(_RANGE, TIME),
        "policyVersion": integer(0, 999_999_999, "it must be a whole number"),
        **PAGING,
    },
)
@requires(scopes.AUDIT_READ)
def list_audit() -> dict[str, Any]:
    """One page of the audit."""
    query, paging = read_query()
    wanted = AuditFilter(**{_RANGE.get(name, name): value for name, value in query.items()})
    return listed(use_cases().audit.page(wanted, **paging), audit_entry, **paging)


@bp.get("/audit/verify")
@Description((AuditProof,), refusals=(errors.RateLimited,))
@requires(scopes.AUDIT_READ)
def verify_audit() -> AuditProof:
    """Whether the hash chain confirms every record."""
    read_query()
    return use_cases().chain.verify()
