"""The audit record: who did what, under which policy, with what outcome."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

import msgspec

from sentryagent_idp.domain.identity import CLAIM_PREFIXES


class Action(StrEnum):
    """The audited action."""

    TOKEN_ISSUED = "token.issued"
    TOKEN_REFUSED = "token.refused"
    TOKEN_REJECTED = "token.rejected"
    TOKEN_REVOKED = "token.revoked"
    AUTH_FAILED = "auth.failed"
    POLICY_CREATED = "policy.created"
    POLICY_UPDATED = "policy.updated"
    POLICY_DELETED = "policy.deleted"
    POLICY_PINNED = "policy.pinned"
    AGENT_CREATED = "agent.created"
    AGENT_UPDATED = "agent.updated"
    AGENT_SUSPENDED = "agent.suspended"
    AGENT_REACTIVATED = "agent.reactivated"
    AGENT_DECOMMISSIONED = "agent.decommissioned"
    CREDENTIAL_GENERATED = "credential.generated"
    CREDENTIAL_ROTATED = "credential.rotated"
    CREDENTIAL_REVOKED = "credential.revoked"
    ADMIN_TOKEN_ISSUED = "admin.token_issued"
    KEY_CREATED = "key.created"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    KEY_REMOVED = "key.removed"
    KEY_REWRAPPED = "key.rewrapped"
    SERVICE_CREATED = "service.created"
    SERVICE_UPDATED = "service.updated"
    SERVICE_DELETED = "service.deleted"
    CLIENT_CREATED = "client.created"
    CLIENT_ROTATED = "client.rotated"
    CLIENT_REVOKED = "client.revoked"


class Outcome(StrEnum):
    """The outcome of the action."""

    SUCCESS = "success"
    FAILURE = "failure"


class RequestContext(msgspec.Struct, frozen=True):
    """The fields that all records of one HTTP request or command share; set by us, never taken from the client.

    `person` is the one who ran the command, or for whom the admin token was issued.
    """

    request_id: str
    address: str | None
    person: str | None = None


PROVIDER = "provider"
"""The actor of the provider's own actions, such as creating the first signing key or removing an old one."""


class Audited(Protocol):
    """The target of an audited change, such as a policy."""

    @property
    def in_audit(self) -> Mapping[str, Any]:
        """The fields of `AuditRecord` that identify the target; its `details` are added to those of the change."""


class AuditRecord(msgspec.Struct, frozen=True):
    """An audit record. `details` never contains a token; a token is identified by its `jti`."""

    event_id: UUID
    timestamp: datetime
    action: Action
    outcome: Outcome
    actor: str
    request_id: str
    address: str | None
    agent_id: UUID | None = None
    policy_id: UUID | None = None
    policy_version: int | None = None
    repository: str | None = None
    details: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Order(StrEnum):
    """The order in which the audit is read."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """The filters and the order of a query of the audit; `start` is inclusive, `end` exclusive.

    `after` is the event after which the page begins, in that order.
    """

    action: str | None = None
    outcome: str | None = None
    actor: str | None = None
    agent_id: UUID | None = None
    policy_id: UUID | None = None
    policy_version: int | None = None
    repository: str | None = None
    request_id: str | None = None
    address: str | None = None
    event_id: UUID | None = None
    start: datetime | None = None
    end: datetime | None = None
    after: UUID | None = None
    order: Order = Order.NEWEST


@dataclass(frozen=True, slots=True)
class AuditPage:
    """One page of the audit; `total` is `None` if it was not counted.

    `next` is the event after which the next page begins, or `None` at the end. A page that is not full may have one,
    because a query without an index examines a bounded number of records at a time.
    """

    data: Sequence[AuditRecord]
    next: UUID | None
    total: int | None = None


MAX_REFUSAL_BYTES = 8 * 1024
"""The maximum size of a refused run's details as JSON: strangers control them, and names in a token may be long."""
_LENGTHS = (512, 256, 128, 64, 32, 16)
_PREFIXES = tuple(CLAIM_PREFIXES.values())
_CHARACTERS_AN_ITEM = 16
"""Lists are cut along with strings, to one item for each 16 characters that a string may have."""


def cut_to_size(details: Mapping[str, Any], most: int = MAX_REFUSAL_BYTES) -> dict[str, Any]:
    """Cut the details to `most` bytes of JSON, no more than necessary; `truncated` is added if they are cut.

    Claims with a prefix in their names are removed first, because an organisation may have any number of them; `trace`
    is emptied if even short strings are not enough. Clients must not determine the number and names of the other fields.
    """
    if _size(details) <= most:
        return dict(details)
    details = {name: value for name, value in details.items() if not name.startswith(_PREFIXES)}
    for length in _LENGTHS:
        cut = {**_cut(details, length), "truncated": True}
        if _size(cut) <= most:
            return cut
    return {**_cut({**details, "trace": []}, _LENGTHS[-1]), "truncated": True}


def _size(details: Mapping[str, Any]) -> int:
    return len(json.dumps(details))


def _cut(value: Any, length: int) -> Any:
    """The value with its strings cut to `length` characters, and its lists in proportion."""
    if isinstance(value, str):
        return value if len(value) <= length else f"{value[:length]}…"
    if isinstance(value, Mapping):
        return {name: _cut(field, length) for name, field in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item, length) for item in value[: length // _CHARACTERS_AN_ITEM]]
    return value
