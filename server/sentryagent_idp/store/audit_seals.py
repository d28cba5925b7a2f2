"""The tables of the audit log's hash chain.

A record gets its sequence number before it commits, so a record with a lower number can appear after one with a higher
number. Numbers that were missing when a later record was sealed are kept in `audit_gaps` for a while, and records that
appear there are sealed late. The chain begins at the lowest seal, the anchor, whose record may be gone (retention).
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Enum,
    String,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.engine import Connection, Row
from sqlalchemy.types import TypeDecorator, TypeEngine

from sentryagent_idp.domain import audit_chain
from sentryagent_idp.domain.audit_chain import EPOCH, AuditTail, Gap, Seal, SealedRecord
from sentryagent_idp.store import driver, locks
from sentryagent_idp.store.audit import AUDIT_LOG, AUDIT_SEALS, DISORDER, NUMBER
from sentryagent_idp.store.columns import METADATA, Moment
from sentryagent_idp.store.driver import InsertMany

AUDIT_GAPS = Table(
    "audit_gaps",
    METADATA,
    Column("first_sequence", NUMBER, primary_key=True, autoincrement=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("seen_at", Moment, nullable=False),
)


def _stored(column: Column[Any]) -> TypeEngine[Any]:
    """Return the type that reads a column exactly as it is stored, so that tampered values can be read, too."""
    if isinstance(column.type, TypeDecorator):
        return column.type.impl_instance
    return String() if isinstance(column.type, Enum) else column.type


_L, _S, _G = AUDIT_LOG.c, AUDIT_SEALS.c, AUDIT_GAPS.c
_RECORD = [type_coerce(column, _stored(column)).label(column.name) for column in AUDIT_LOG.columns]
_NAMES = tuple(column.name for column in AUDIT_LOG.columns)
_SEALED_UP_TO = select(func.coalesce(func.max(AUDIT_SEALS.alias("sealed").c.sequence), 0)).scalar_subquery()
# The anchor does not confirm its record: after retention, a forged one could be inserted under its number. The last two
# conditions do not change the result, but keep PostgreSQL from reading the seals of other records.
_ANCHOR_NUMBER = select(func.min(AUDIT_SEALS.alias("anchor").c.seal)).scalar_subquery()
_CONFIRMS = and_(
    _S.sequence == _L.sequence,
    _S.seal > _ANCHOR_NUMBER,
    _S.sequence > bindparam("after"),
    _S.sequence <= bindparam("up_to"),
)
_LOG_AND_CHAIN = AUDIT_LOG.outerjoin(AUDIT_SEALS, _CONFIRMS)
_SEALS_AND_LOG = AUDIT_SEALS.outerjoin(AUDIT_LOG, _L.sequence == _S.sequence)
_IN_GAP = and_(_L.sequence >= _G.first_sequence, _L.sequence <= _G.last_sequence)
_LIMIT: Any = bindparam("limit")

_NEW = select(*_RECORD).where(_L.sequence > _SEALED_UP_TO).order_by(_L.sequence).limit(_LIMIT)
_IS_UNSEALED = ~exists().where(_S.sequence == _L.sequence)
# One lookup in the log for each of the few gaps: as a join, PostgreSQL would scan the whole log.
_FIRST_IN_GAP = select(func.min(_L.sequence)).where(_IN_GAP, _IS_UNSEALED).scalar_subquery()
_GAPS_WITH_RECORDS = (
    select(_G.first_sequence, _G.last_sequence).where(_FIRST_IN_GAP.is_not(None)).order_by(_G.first_sequence)
)
_BETWEEN = (
    select(*_RECORD)
    .where(_L.sequence >= bindparam("first"), _L.sequence <= bindparam("last"), _IS_UNSEALED)
    .order_by(_L.sequence)
    .limit(_LIMIT)
)
_WRITTEN_UP_TO = select(func.coalesce(func.max(_L.sequence), 0)).scalar_subquery()
_HAS_WORK = select((_WRITTEN_UP_TO > _SEALED_UP_TO) | _GAPS_WITH_RECORDS.exists())
_HEAD = select(AUDIT_SEALS).order_by(_S.seal.desc()).limit(1)
_ANCHOR = select(AUDIT_SEALS).order_by(_S.seal).limit(1)
_AFTER = (
    select(
        AUDIT_SEALS,
        *(type_coerce(column, _stored(column)).label(f"log_{column.name}") for column in AUDIT_LOG.columns),
    )
    .select_from(_SEALS_AND_LOG)
    .where(_S.seal > bindparam("after"))
    .order_by(_S.seal)
    .limit(_LIMIT)
)
_OLDEST = (
    select(_S.seal, _S.sequence, (_L.timestamp < bindparam("before", type_=Moment)).label("is_past"))
    .select_from(_SEALS_AND_LOG)
    .where(_S.seal > bindparam("after"))
    .order_by(_S.seal)
    .limit(_LIMIT)
)
_BEFORE = (
    select(AUDIT_SEALS)
    .join(AUDIT_LOG, _L.sequence == _S.sequence)
    .where(_L.timestamp < bindparam("moment", type_=Moment))
    .order_by(_L.timestamp.desc(), _L.sequence.desc())
    .limit(1)
)
_SLIPPED_IN = (
    select(type_coerce(_L.event_id, String))
    .select_from(_LOG_AND_CHAIN.outerjoin(AUDIT_GAPS, _IN_GAP))
    .where(_S.seal.is_(None), _G.first_sequence.is_(None), _L.sequence < _SEALED_UP_TO)
    .where(_L.sequence > bindparam("after"), _L.sequence <= bindparam("up_to"))
    .order_by(_L.sequence)
    .limit(1)
)
_NEWEST = {
    # Includes records that were deleted from the end, but not those that were rolled back.
    "sqlite": literal_column("(SELECT seq FROM sqlite_sequence WHERE name = 'audit_log')", BigInteger),
    "postgresql": select(func.max(_L.sequence)).scalar_subquery(),
}
_TAIL_COUNT = select(func.count()).select_from(AUDIT_LOG).where(_L.sequence > _SEALED_UP_TO).scalar_subquery()
_IN_ONE_GAP = select(func.count()).select_from(AUDIT_LOG).where(_IN_GAP, _IS_UNSEALED).correlate(AUDIT_GAPS)
_LATE_COUNT = (
    select(func.coalesce(func.sum(_IN_ONE_GAP.scalar_subquery()), 0))
    .select_from(AUDIT_GAPS)
    .scalar_subquery()
)


_HEAD_AND_LAST = (
    "SELECT seal, sequence, event_id, hash, (SELECT max(sequence) FROM audit_log) "
    "FROM audit_seals ORDER BY seal DESC LIMIT 1"
)
_APPEND = InsertMany(AUDIT_SEALS, ("seal", "sequence", "event_id", "hash"))


class AuditSealTable:
    """The chain in one transaction (`sentryagent_idp.ports.AuditSeals`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def is_gapless(self) -> bool:
        # On SQLite, a rollback also returns the sequence numbers.
        return self._connection.dialect.name == "sqlite"

    def has_work(self) -> bool:
        return bool(self._connection.execute(_HAS_WORK).scalar_one())

    def try_lock(self) -> bool:
        return locks.try_take(self._connection, locks.Lock.AUDIT_SEALS)

    def head(self) -> Seal | None:
        return self._one(_HEAD)

    def anchor(self) -> Seal | None:
        return self._one(_ANCHOR)

    def unsealed(self, *, limit: int) -> Sequence[audit_chain.Row]:
        found: list[audit_chain.Row] = []
        for first, last in [] if self.is_gapless else self._connection.execute(_GAPS_WITH_RECORDS).all():
            if len(found) < limit:
                found += self._rows(_BETWEEN, limit=limit - len(found), first=first, last=last)
        return found + (self._rows(_NEW, limit=limit - len(found)) if len(found) < limit else [])

    def append(self, seals: Sequence[Seal], now: datetime) -> None:
        if not self.is_gapless:
            sealed_up_to = self._connection.execute(select(_SEALED_UP_TO)).scalar_one()
            self._record_gaps(audit_chain.gaps(sealed_up_to, (seal.sequence for seal in seals)), now)
        _APPEND(self._connection, [_values(seal) for seal in seals])

    def follow(self, rows: Sequence[audit_chain.Row]) -> None:
        """Seal rows just written to a gapless database; if an earlier record is unsealed, leave them to the sealer."""
        found = driver.run(self._connection, _HEAD_AND_LAST)
        if not found:
            return
        *head, last = found[0]
        first = last - len(rows) + 1
        previous = Seal(*head)
        if previous.sequence == first - 1:
            numbered = ({**row, "sequence": sequence} for sequence, row in enumerate(rows, first))
            _APPEND(self._connection, [_values(seal) for seal in audit_chain.chain(previous, numbered)])

    def close_gaps(self, before: datetime) -> None:
        if not self.is_gapless:
            self._connection.execute(delete(AUDIT_GAPS).where(_G.seen_at < before))

    def after(self, number: int, *, limit: int) -> Sequence[SealedRecord]:
        rows = self._connection.execute(_AFTER, {"after": number, "limit": limit})
        return [SealedRecord(_seal(row), _record_of(row)) for row in rows]

    def get(self, number: int) -> Seal | None:
        return self._one(select(AUDIT_SEALS).where(_S.seal == number))

    def before(self, moment: datetime) -> Seal | None:
        return self._one(_BEFORE, moment=max(moment, EPOCH) - DISORDER)

    def slipped_in(self, after: int, up_to: int) -> str | None:
        return self._connection.execute(_SLIPPED_IN, {"after": after, "up_to": up_to}).scalar_one_or_none()

    def tail(self) -> AuditTail:
        newest = func.coalesce(_NEWEST[self._connection.dialect.name], 0)
        row = self._connection.execute(select(_SEALED_UP_TO, _TAIL_COUNT, _LATE_COUNT, newest)).one()
        sealed_up_to, records, late, last = row
        return AuditTail(unsealed=records + int(late), missing=max(0, last - sealed_up_to - records))

    def purge(self, before: datetime, *, limit: int) -> int:
        locks.take(self._connection, locks.Lock.AUDIT_SEALS)
        anchor = self.anchor()
        if anchor is None:
            return 0
        span = {"after": anchor.number, "before": before, "limit": limit}
        oldest = self._connection.execute(_OLDEST, span)
        past = list(takewhile(lambda row: row.is_past in {True, None}, oldest))  # None: the record is gone
        if past:
            gone = [row.sequence for row in past]
            self._connection.execute(delete(AUDIT_LOG).where(_L.sequence.in_(gone)))
            self._connection.execute(delete(AUDIT_SEALS).where(_S.seal < past[-1].seal))
        return len(past)

    def _one(self, statement: Any, **parameters: Any) -> Seal | None:
        row = self._connection.execute(statement, parameters).one_or_none()
        return None if row is None else _seal(row)

    def _rows(self, statement: Any, **parameters: int) -> list[audit_chain.Row]:
        return [row._asdict() for row in self._connection.execute(statement, parameters)]

    def _record_gaps(self, open_numbers: Sequence[Gap], now: datetime) -> None:
        rows = [
            {"first_sequence": gap.first, "last_sequence": gap.last, "seen_at": now} for gap in open_numbers
        ]
        if rows:
            self._connection.execute(insert(AUDIT_GAPS), rows)


def _seal(row: Row[Any]) -> Seal:
    return Seal(row.seal, row.sequence, row.event_id, row.hash)


def _values(seal: Seal) -> tuple[Any, ...]:
    return seal.number, seal.sequence, seal.event_id, seal.hash


def _record_of(row: Row[Any]) -> audit_chain.Row | None:
    """Return the record next to a seal, or `None` if it is gone."""
    record = row._asdict()
    if record["log_sequence"] is None:
        return None
    return {name: record[f"log_{name}"] for name in _NAMES}
