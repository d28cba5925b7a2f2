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
    """What a record is about."""

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
    """How it ended."""

    SUCCESS = "success"
    FAILURE = "failure"


class RequestContext(msgspec.Struct, frozen=True):
    """What every record of one HTTP request or command has in common; made by us, never taken from the client.

    `person` is who gave the command, or for whom the admin token was made.
    """

    request_id: str
    address: str | None
    person: str | None = None


PROVIDER = "provider"
"""The actor of what no caller asked for, such as the first signing key or the removal of an old one."""


class Audited(Protocol):
    """What a change is made to, such as a policy."""

    @property
    def in_audit(self) -> Mapping[str, Any]:
        """The fields of `AuditRecord` that name it; `details` are added to the others of the change."""


class AuditRecord(msgspec.Struct, frozen=True):
    """One line of the audit. `details` never holds a token; a token is named by its `jti`."""

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
    """In which order the audit is read."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What the audit is narrowed to, and in which order it is read; `start` is inclusive, `end` exclusive.

    `after` is the event behind which the reading goes on, in that order.
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
    """One page of the audit; `total` is `None` where it was not counted.

    `next` is the event behind which the reading goes on, `None` at the end. A page that is not full may have one: what
    no index finds is looked for in a bounded number of records at a time.
    """

    data: Sequence[AuditRecord]
    next: UUID | None
    total: int | None = None


MAX_REFUSAL_BYTES = 8 * 1024
"""The details of a refused run, as JSON: strangers write them, and names in a token may be long."""
_LENGTHS = (512, 256, 128, 64, 32, 16)
_PREFIXES = tuple(CLAIM_PREFIXES.values())
_CHARACTERS_AN_ITEM = 16
"""Where strings are cut to so many characters times ten, lists are cut to ten items."""


def cut_to_size(details: Mapping[str, Any], most: int = MAX_REFUSAL_BYTES) -> dict[str, Any]:
    """The details in at most so many bytes of JSON, cut no more than it takes, with `truncated` where they are cut.

    Claims that are named by a prefix go first, because an organisation may have any number of them; `trace` goes if
    even short names do not do. The number of the other fields and their names must be the provider's own.
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
    """The value with no string longer than `length` characters, and lists in proportion."""
    if isinstance(value, str):
        return value if len(value) <= length else f"{value[:length]}…"
    if isinstance(value, Mapping):
        return {name: _cut(field, length) for name, field in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item, length) for item in value[: length // _CHARACTERS_AN_ITEM]]
    return value
