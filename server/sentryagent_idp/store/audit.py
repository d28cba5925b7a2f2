"""The audit log table: append-only, in the order of `sequence`."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    Identity,
    Index,
    Integer,
    Select,
    String,
    Subquery,
    Table,
    Text,
    UnaryExpression,
    UniqueConstraint,
    and_,
    case,
    func,
    select,
    true,
)
from sqlalchemy.engine import Connection, Row
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from sentryagent_idp.domain import audit_chain
from sentryagent_idp.domain.audit import Action, AuditFilter, AuditPage, AuditRecord, Order, Outcome
from sentryagent_idp.domain.audit_chain import EPOCH
from sentryagent_idp.domain.text import ascii_lower
from sentryagent_idp.jose import strict_json
from sentryagent_idp.store.columns import METADATA, Id, Json, Moment, word_of
from sentryagent_idp.store.driver import InsertMany

NUMBER = BigInteger().with_variant(Integer, "sqlite")

AUDIT_LOG = Table(
    "audit_log",
    METADATA,
    Column(
        "sequence",
        NUMBER,
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

AUDIT_SEALS = Table(
    "audit_seals",
    METADATA,
    Column("seal", NUMBER, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("event_id", String(36), nullable=False),
    Column("hash", String(64), nullable=False),
    UniqueConstraint("sequence"),
)

_T = AUDIT_LOG.c
# Seal 0 has no event.
_ANCHOR = select(AUDIT_SEALS).where(AUDIT_SEALS.c.seal > 0).order_by(AUDIT_SEALS.c.seal).limit(1)
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
_FEW = ("event_id", "request_id")
_INDEXED = (*_FEW, "agent_id", "policy_id", "repository_key", "action")
"""Indexed columns, the most selective first."""

_MAX_EXAMINED = 20_000
"""The most records that one page examines; takes some hundredths of a second."""
_MAX_COUNTED = 100_000
DISORDER = timedelta(minutes=2)
"""The most by which records can be out of timestamp order: clocks differ, and transactions wait."""
_LAST_DAY = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
_BEHIND_ALL = 2**63 - 1
_LONGEST_KEY = 150
_COLUMNS = (*_FIELDS, "repository_key")
_APPEND = InsertMany(AUDIT_LOG, _COLUMNS)


def _leave_unsealed(_rows: Sequence[audit_chain.Row]) -> None:
    """Do nothing: the sealer will seal the records."""


class AuditTable:
    """The audit log in one transaction (`sentryagent_idp.ports.AuditLog`); `seal` gets the rows just written."""

    def __init__(
        self, connection: Connection, seal: Callable[[Sequence[audit_chain.Row]], None] = _leave_unsealed
    ) -> None:
        self._connection = connection
        self._seal = seal

    def append(self, record: AuditRecord) -> None:
        self.append_all([record])

    def append_all(self, records: Sequence[AuditRecord]) -> None:
        rows = [_row(record) for record in records]
        _APPEND(self._connection, [[row[name] for name in _COLUMNS] for row in rows])
        self._seal(rows)

    def page(
        self, wanted: AuditFilter, *, page: int = 1, limit: int, is_counted: bool = False
    ) -> AuditPage | None:
        scan = _Scan(self._connection, wanted)
        if wanted.after is not None and not scan.begin_after(wanted.after):
            return None
        rows = scan.rows(limit=limit, offset=(page - 1) * limit)
        following = rows[-1].event_id if len(rows) == limit else scan.last_examined()
        total = scan.count() if is_counted else None
        return AuditPage([_record(row) for row in rows], following, total)


class _Scan:
    """The scan of the log that a filter needs.

    It follows one index: that of the filter's most selective column, or else the order of the log. It skips records
    that the rest of the filter excludes, and examines at most `_MAX_EXAMINED` records, so that a page of a long log costs
    no more. On PostgreSQL, reading oldest first follows the order of the seals, because a transaction that commits late
    has lower sequence numbers than records that were already read.
    """

    def __init__(self, connection: Connection, wanted: AuditFilter) -> None:
        self._connection = connection
        self._is_ascending = wanted.order is Order.OLDEST
        is_by_seal = self._is_ascending and connection.dialect.name == "postgresql"
        self._key: Column[int] = AUDIT_SEALS.c.seal if is_by_seal else _T.sequence
        joined = AUDIT_LOG.join(AUDIT_SEALS, AUDIT_SEALS.c.sequence == _T.sequence)
        self._source: FromClause = joined if is_by_seal else AUDIT_LOG
        self._filters = _exact(wanted)
        self._span = wanted.start, wanted.end
        index = next((name for name in (_FEW if is_by_seal else _INDEXED) if name in self._filters), None)
        self._index_conditions = [_T[index] == self._filters.pop(index)] if index else []
        self._index_conditions += self._bounds()

    def begin_after(self, event_id: UUID) -> bool:
        """Begin after this event, even if it is the last one that retention deleted; `False` if the event is unknown.

        An event without a seal comes after all sealed events.
        """
        at = _T.event_id == event_id
        position = self._first(select(self._key).select_from(self._source).where(at))
        if position is None and self._first(select(_T.sequence).where(at)) is not None:
            position = _BEHIND_ALL
        if position is None:
            anchor = self._connection.execute(_ANCHOR).one_or_none()
            if anchor is None or anchor.event_id != str(event_id):
                return False
            position = getattr(anchor, self._key.name)
        self._index_conditions.append(self._key > position if self._is_ascending else self._key < position)
        return True

    def rows(self, *, limit: int, offset: int) -> Sequence[Row[Any]]:
        """Return the rows of one page."""
        seen, key = self._examined(_MAX_EXAMINED) if self._is_filtered else (self._source, self._key)
        keys = select(key).select_from(seen).order_by(self._ordered(key)).limit(limit).offset(offset)
        keys = keys.where(*(self._filter_conditions(seen.c) if self._is_filtered else self._index_conditions))
        found = select(AUDIT_LOG).select_from(self._source).where(self._key.in_(keys))
        return self._connection.execute(found.order_by(self._ordered(self._key))).all()

    def last_examined(self) -> UUID | None:
        """Return the last event examined for a page that is not full, or `None` if the scan reached the end."""
        if not self._is_filtered:
            return None
        last: UUID | None = self._first(self._select(_T.event_id).offset(_MAX_EXAMINED - 1).limit(1))
        return last

    def count(self) -> int | None:
        """Return the number of matching records, or `None` if more than `_MAX_COUNTED` would have to be examined."""
        seen, _ = self._examined(_MAX_COUNTED + 1)
        matching = func.count(case((and_(true(), *self._filter_conditions(seen.c)), 1)))
        examined, count = self._connection.execute(select(func.count(), matching).select_from(seen)).one()
        return None if examined > _MAX_COUNTED else count

    @property
    def _is_filtered(self) -> bool:
        """Whether the scan may have to skip records."""
        return bool(self._filters) or self._span != (None, None)

    def _examined(self, most: int) -> tuple[Subquery, ColumnElement[int]]:
        """Return the first `most` records of the scan, and the column that orders them."""
        seen = self._select(self._key.label("key"), _T.timestamp, *(_T[name] for name in self._filters))
        table = seen.limit(most).subquery()
        return table, table.c.key

    def _select(self, *columns: ColumnElement[Any]) -> Select[Any]:
        return (
            select(*columns)
            .select_from(self._source)
            .where(*self._index_conditions)
            .order_by(self._ordered(self._key))
        )

    def _ordered(self, key: ColumnElement[int]) -> UnaryExpression[int]:
        return key.asc() if self._is_ascending else key.desc()

    def _filter_conditions(self, columns: ReadOnlyColumnCollection[str, Any]) -> list[ColumnElement[bool]]:
        """Return the conditions on these columns that the index does not cover."""
        start, end = self._span
        conditions = [columns[name] == value for name, value in self._filters.items()]
        conditions += [columns.timestamp >= start] if start else []
        return conditions + ([columns.timestamp < end] if end else [])

    def _bounds(self) -> list[ColumnElement[bool]]:
        """Return bounds on the order of the log that enclose all records of the time span."""
        start, end = self._span
        near = select(self._key).select_from(self._source).limit(1)
        bounds: list[ColumnElement[bool]] = []
        if start is not None:
            before = _T.timestamp < max(start, EPOCH) - DISORDER
            last = self._first(near.where(before).order_by(_T.timestamp.desc(), self._key.desc()))
            bounds += [] if last is None else [self._key > last]
        if end is not None:
            behind = _T.timestamp >= min(end, _LAST_DAY) + DISORDER
            first = self._first(near.where(behind).order_by(_T.timestamp, self._key))
            bounds += [] if first is None else [self._key < first]
        return bounds

    def _first(self, statement: Select[Any]) -> Any:
        return self._connection.execute(statement).scalar_one_or_none()


def _row(record: AuditRecord) -> audit_chain.Row:
    """Return the record as the database stores it."""
    return {
        "event_id": str(record.event_id),
        "timestamp": audit_chain.microseconds(record.timestamp),
        "action": record.action.value,
        "outcome": record.outcome.value,
        "actor": record.actor,
        "request_id": record.request_id,
        "address": record.address,
        "agent_id": _text(record.agent_id),
        "policy_id": _text(record.policy_id),
        "policy_version": record.policy_version,
        "repository": record.repository,
        "details": strict_json.write(record.details),
        "repository_key": _repository_key(record.repository),
    }


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _exact(wanted: AuditFilter) -> dict[str, Any]:
    """Return the columns that must equal a value."""
    values = {name: getattr(wanted, name) for name in _EXACT}
    values["repository_key"] = _repository_key(wanted.repository)
    return {name: value for name, value in values.items() if value is not None}


def _repository_key(repository: str | None) -> str | None:
    """Return the repository in lower case, truncated to fit into an index.

    GitHub's names have at most 140 characters; a longer one in a token must not prevent the audit record.
    """
    return None if repository is None else ascii_lower(repository)[:_LONGEST_KEY]


def _record(row: Row[Any]) -> AuditRecord:
    values = row._asdict()
    return AuditRecord(**{name: values[name] for name in _FIELDS})
