"""`GET /audit`: what happened, newest first; `GET /audit/verify`: whether somebody changed it since."""

from typing import Any

from flask import Blueprint

from sentryagent_idp.api.guards import requires
from sentryagent_idp.api.requests import moment_filter, number_filter, page_and_limit, read_query, uuid_filter
from sentryagent_idp.api.responses import listed
from sentryagent_idp.api.use_cases import services
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.records import audit_entry
from sentryagent_idp.ports import AuditFilter
from sentryagent_idp.runtime.addresses import canonical

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
_PARAMETERS = {*_TEXT_FILTERS, *_ID_FILTERS, *_TIME_FILTERS, "policyVersion", "page", "limit"}


@bp.get("/audit")
@requires(scopes.AUDIT_READ)
def list_audit() -> dict[str, Any]:
    """One page of the audit."""
    query = read_query(_PARAMETERS)
    page, limit = page_and_limit(query)
    return listed(services().audit.page(_filter(query), page=page, limit=limit), audit_entry, page, limit)


@bp.get("/audit/verify")
@requires(scopes.AUDIT_READ)
def verify_audit() -> dict[str, Any]:
    """Whether the hash chain confirms every record."""
    read_query(())
    return services().chain.verify().as_json()


def _filter(query: dict[str, str]) -> AuditFilter:
    wanted: dict[str, Any] = {field: query.get(name) for name, field in _TEXT_FILTERS.items()}
    if wanted["address"] is not None:
        wanted["address"] = canonical(wanted["address"])
    wanted |= {field: uuid_filter(query, name) for name, field in _ID_FILTERS.items()}
    wanted |= {field: moment_filter(query, name) for name, field in _TIME_FILTERS.items()}
    return AuditFilter(**wanted, policy_version=number_filter(query, "policyVersion"))
