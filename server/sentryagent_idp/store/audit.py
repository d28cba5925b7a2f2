"""The table of the audit: append-only, in the order of `sequence`."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    select,
)
from sqlalchemy.engine import Connection, Row

from sentryagent_idp.domain import audit_chain
from sentryagent_idp.domain.audit import Action, AuditFilter, AuditRecord, Outcome
from sentryagent_idp.domain.records import Page
from sentryagent_idp.domain.text import ascii_lower
from sentryagent_idp.store.columns import METADATA, Id, Json, Moment, word_of
from sentryagent_idp.store.driver import InsertMany
from sentryagent_idp.store.paging import fetch_page

AUDIT_LOG = Table(
    "audit_log",
    METADATA,
    Column(
        "sequence",
        BigInteger().with_variant(Integer, "sqlite"),
        Identity(always=True),
        primary_key=True,
    ),
    Column("event_id", Id, nullable=False),
    Column("timestamp", Moment, nullable=False),
    Column("action", word_of(Action), nullable=False),
    Column("outcome", word_of(Outcome), nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("address", Text),
    Column("agent_id", Id),
    Column("policy_id", Id),
    Column("policy_version", Integer),
    Column("repository", Text),
    Column("repository_key", Text),
    Column("details", Json, nullable=False),
    UniqueConstraint("event_id"),
    Index(None, "timestamp"),
    Index(None, "action", "sequence"),
    Index(None, "agent_id", "sequence"),
    Index(None, "policy_id", "sequence"),
    Index(None, "repository_key", "sequence"),
    Index(None, "request_id"),
    sqlite_autoincrement=True,
)

_T = AUDIT_LOG.c
_FIELDS = AuditRecord.__struct_fields__
_EXACT = (
    "action",
    "outcome",
    "actor",
    "agent_id",
    "policy_id",
    "policy_version",
    "request_id",
    "address",
    "event_id",
)
_LONGEST_KEY = 150
_APPEND = InsertMany(AUDIT_LOG, (*_FIELDS, "repository_key"))


def _leave_unsealed(_rows: Sequence[audit_chain.Row]) -> None:
    """Leave records to the sealer."""


class AuditTable:
    """The audit in one transaction (`sentryagent_idp.ports.AuditLog`); `seal` gets the rows that were written."""

    def __init__(
        self, connection: Connection, seal: Callable[[Sequence[audit_chain.Row]], None] = _leave_unsealed
    ) -> None:
        self._connection = connection
        self._seal = seal

    def append(self, record: AuditRecord) -> None:
        self.append_all([record])

    def append_all(self, records: Sequence[AuditRecord]) -> None:
        self._seal(_APPEND(self._connection, [_values(record) for record in records]))

    def page(self, wanted: AuditFilter, *, page: int, limit: int) -> Page[AuditRecord]:
        order = (_T.sequence.desc(),)
        total, rows = fetch_page(
            self._connection, AUDIT_LOG, _conditions(wanted), order, page=page, limit=limit
        )
        return Page([_record(row) for row in rows], total)


def _values(record: AuditRecord) -> dict[str, Any]:
    """The row of a record."""
    return {**msgspec.structs.asdict(record), "repository_key": _repository_key(record.repository)}


def _conditions(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    """What the filter says about a row; `after` is compared in the order of writing, not by the clock."""
    conditions = [_T[name] == getattr(wanted, name) for name in _EXACT if getattr(wanted, name) is not None]
    if wanted.repository is not None:
        conditions.append(_T.repository_key == _repository_key(wanted.repository))
    if wanted.start is not None:
        conditions.append(_T.timestamp >= wanted.start)
    if wanted.end is not None:
        conditions.append(_T.timestamp < wanted.end)
    if wanted.after is not None:
        seen = select(_T.sequence).where(_T.event_id == wanted.after).scalar_subquery()
        conditions.append(_T.sequence > seen)
    return conditions


def _repository_key(repository: str | None) -> str | None:
    """The repository without case, cut to what an index takes.

    GitHub's names have at most 140 characters; a longer one in a token must not make the record impossible.
    """
    return None if repository is None else ascii_lower(repository)[:_LONGEST_KEY]


def _record(row: Row[Any]) -> AuditRecord:
    """The record of a row."""
    values = row._asdict()
    return AuditRecord(**{name: values[name] for name in _FIELDS})
