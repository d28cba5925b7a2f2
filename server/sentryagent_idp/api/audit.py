"""`GET /audit`, which lists audit records, and `GET /audit/verify`, which checks their hash chain."""

from typing import Any

from flask import Blueprint
from pydantic import Field

from sentryagent_idp import errors
from sentryagent_idp.api.description import (
    BOOLEAN,
    ID,
    PAGING,
    TEXT,
    TIME,
    Description,
    Parameter,
    choice,
    integer,
)
from sentryagent_idp.api.guards import requires
from sentryagent_idp.api.requests import read_query
from sentryagent_idp.api.responses import Model
from sentryagent_idp.api.use_cases import use_cases
from sentryagent_idp.domain import scopes
from sentryagent_idp.domain.audit import AuditFilter, Order
from sentryagent_idp.domain.records import AuditEntry, IdText, audit_entry
from sentryagent_idp.runtime.addresses import canonical
from sentryagent_idp.use_cases.sealing import AuditProof

bp = Blueprint("audit", __name__)

_LAST_PAGE = 100
_USE_THE_CURSOR = f"it must be a number from 1 to {_LAST_PAGE}; to read further, set `after` to the `next` of the previous page"
_ORDERS = choice([order.value for order in Order])
_ORDER = Parameter({**_ORDERS.schema, "default": Order.NEWEST.value}, lambda text: Order(_ORDERS.read(text)))
_RANGE = {"from": "start", "to": "end"}


class Audit(Model):
    """A page of audit records; `total` is present only if `count=true` was sent."""

    data: list[AuditEntry]
    next: IdText | None
    total: int | None = Field(default=None, ge=0)
    page: int = Field(ge=1)
    limit: int = Field(ge=1, le=100)


@bp.get("/audit")
@Description(
    (Audit,),
    query={
        **dict.fromkeys(("action", "outcome", "actor", "repository", "requestId"), TEXT),
        "address": Parameter(TEXT.schema, canonical),
        **dict.fromkeys(("eventId", "agentId", "policyId", "after"), ID),
        **dict.fromkeys(_RANGE, TIME),
        "policyVersion": integer(0, 999_999_999, "it must be a whole number"),
        "order": _ORDER,
        "count": BOOLEAN,
        **PAGING,
        "page": integer(1, _LAST_PAGE, _USE_THE_CURSOR, default=1),
    },
)
@requires(scopes.AUDIT_READ)
def list_audit() -> dict[str, Any]:
    """List audit records, newest first.

    With `order=oldest`, a record appears within about a second of its commit. `next` is the `after` of the next page,
    or `null` at the end; a page that has `next` may be short or even empty. `total` is returned only with `count=true`;
    it is `null` if counting would mean looking at more than 100,000 records.
    """
    query, paging = read_query()
    is_counted = query.pop("count", False)
    wanted = AuditFilter(**{_RANGE.get(name, name): value for name, value in query.items()})
    found = use_cases().audit.page(wanted, **paging, is_counted=is_counted)
    total = {"total": found.total} if is_counted else {}
    following = str(found.next) if found.next else None
    return {"data": [audit_entry(it) for it in found.data], "next": following, **total, **paging}


@bp.get("/audit/verify")
@Description((AuditProof,), refusals=(errors.RateLimited,))
@requires(scopes.AUDIT_READ)
def verify_audit() -> AuditProof:
    """Check the audit's hash chain.

    Checks the records that the background check has not reached yet, for a few seconds at most.
    """
    read_query()
    return use_cases().chain.verify()
