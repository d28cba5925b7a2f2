"""`GET /audit`: what happened, newest first; `GET /audit/verify`: whether somebody changed it since."""

from typing import Any

from flask import Blueprint

from sentryagent_idp import errors
from sentryagent_idp.api import responses
from sentryagent_idp.api.description import ID, PAGING, TEXT, TIME, Description
from sentryagent_idp.api.guards import requires
from sentryagent_idp.api.requests import moment_filter, number_filter, page_and_limit, read_query, uuid_filter
from sentryagent_idp.api.responses import listed
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.audit import AuditFilter
from sentryagent_idp.domain.records import audit_entry
from sentryagent_idp.runtime.addresses import canonical
from sentryagent_idp.use_cases.sealing import AuditProof

bp = Blueprint("audit", __name__)

_TEXT_FILTERS = {
    "action": "action",
    "outcome": "outcome",
    "actor": "actor",
    "repository": "repository",
    "requestId": "request_id",
    "address": "address",
}
_ID_FILTERS = {"eventId": "event_id", "agentId": "agent_id", "policyId": "policy_id", "after": "after"}
_TIME_FILTERS = {"from": "start", "to": "end"}


@bp.get("/audit")
@Description(
    (responses.Audit,),
    query={
        **dict.fromkeys(_TEXT_FILTERS, TEXT),
        **dict.fromkeys(_ID_FILTERS, ID),
        **dict.fromkeys(_TIME_FILTERS, TIME),
        "policyVersion": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
        **PAGING,
    },
)
@requires(scopes.AUDIT_READ)
def list_audit() -> dict[str, Any]:
    """One page of the audit."""
    query = read_query()
    page, limit = page_and_limit(query)
    return listed(use_cases().audit.page(_filter(query), page=page, limit=limit), audit_entry, page, limit)


@bp.get("/audit/verify")
@Description((AuditProof,), refusals=(errors.RateLimited,))
@requires(scopes.AUDIT_READ)
def verify_audit() -> AuditProof:
    """Whether the hash chain confirms every record."""
    read_query()
    return use_cases().chain.verify()


def _filter(query: dict[str, str]) -> AuditFilter:
    wanted: dict[str, Any] = {field: query.get(name) for name, field in _TEXT_FILTERS.items()}
    if wanted["address"] is not None:
        wanted["address"] = canonical(wanted["address"])
    wanted |= {field: uuid_filter(query, name) for name, field in _ID_FILTERS.items()}
    wanted |= {field: moment_filter(query, name) for name, field in _TIME_FILTERS.items()}
    return AuditFilter(**wanted, policy_version=number_filter(query, "policyVersion"))
