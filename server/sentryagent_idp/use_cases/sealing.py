"""The audit that proves itself: records are sealed, and the chain is checked and exported.

SQLite has one writer at a time, which seals a record in the transaction that writes it. On PostgreSQL a chain head in
there would let only one exchange at a time commit in all replicas, so a sealer follows: one at a time, in batches; one
that is killed leaves its last batch undone. On SQLite it is left with what an earlier version wrote.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from typing_extensions import TypedDict

from sentryagent_idp.domain import audit_chain
from sentryagent_idp.domain.audit_chain import GENESIS, Row, Seal, SealedRecord, microseconds
from sentryagent_idp.errors import RateLimited
from sentryagent_idp.ports import Clock, Store, Transaction

INTERVAL_SECONDS = 0.5
"""How often a sealer looks for new records: half of what a record may stay unsealed."""
BUSY_INTERVAL_SECONDS = 0.1
"""How soon it looks again where it found some: few at a time hold no exchange up, those of half a second would."""

_SEAL_BATCH = 100
"""Records in one transaction: small, since SQLite lets nobody else write meanwhile."""
_REST_SECONDS = 0.01
"""Between two full batches: a process that asks for SQLite's lock now and then finds no gap between them."""

_GAPS_STAY = timedelta(minutes=10)
"""Far longer than the database lets a transaction of ours stay open (30 s without a statement, 3.5 s for each)."""

_READ_BATCH = 1000
_WINDOW = 10_000
_BEFORE_ALL = -(2**63)
"""Records of ours have positive numbers; a forged one may have any."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals what was committed since the last time; every process may have one."""

    store: Store
    clock: Clock
    rest: Callable[[float], object] = time.sleep

    def run(self) -> int:
        """Seal all that waits, unless another sealer is at it; returns how many records. Raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            if not tx.seals.has_work():
                return 0
        sealed = 0
        while True:
            went = self._batch()
            sealed += went
            if went < _SEAL_BATCH:
                return sealed
            self.rest(_REST_SECONDS)

    def _batch(self) -> int:
        with self.store.write() as tx:
            if not tx.seals.try_lock():
                return 0
            records = tx.seals.unsealed(limit=_SEAL_BATCH)
            if records:
                head = tx.seals.head()
                seals = audit_chain.chain(head or GENESIS, records)
                now = self.clock()
                tx.seals.append(seals if head else [GENESIS, *seals], now)
                tx.seals.close_gaps(now - _GAPS_STAY)
        return len(records)


class SealedUpTo(TypedDict):
    """A seal's number and hash; 0 and 64 zeros where nothing is sealed yet."""

    seal: int
    hash: str


class AuditProof(TypedDict):
    """Whether the hash chain confirms every record; `unsealed` ones wait for their seal, at most a second or so.

    `head` is the last seal that was in order: keep it outside, and a removed end of the chain can be found.
    """

    valid: bool
    checked: int
    firstBroken: str | None
    head: SealedUpTo
    reason: str | None
    unsealed: int
    missing: int


@dataclass(frozen=True, slots=True)
class AuditChain:
    """Reads the chain in batches, so that its length costs time and no memory."""

    store: Store
    _checking: Lock = field(default_factory=Lock)

    def verify(self) -> AuditProof:
        """Check every seal and every record; `firstBroken` is the event id of the first one that is not confirmed.

        Raises `RateLimited` where this process is at it already: checks of a long chain must not take every thread.
        Raises `DatabaseUnavailable`.
        """
        if not self._checking.acquire(blocking=False):
            raise RateLimited("The chain is being checked already; wait for that answer.", retry_after=5)
        try:
            return self._verify()
        finally:
            self._checking.release()

    def _verify(self) -> AuditProof:
        checked, head = 0, None
        for previous, batch, gapless in self._batches():
            good, reason = audit_chain.first_fault(previous, batch, gapless=gapless)
            checked, head = checked + good, batch[good - 1].seal if good else previous
            if reason:
                return _proof(checked, head, reason, _event_id(batch[good]))
        return self._with_the_rest(checked, head or self._anchor())

    def sealed(self, start: datetime | None, end: datetime | None) -> Iterator[dict[str, Any]]:
        """The sealed records from `start` to before `end`, in the order of the chain, each with its seal.

        A record that was removed is named by its seal alone. Raises `DatabaseUnavailable`.
        """
        for previous, batch, _ in self._batches():
            seals = [previous, *(sealed.seal for sealed in batch)]
            for before, sealed in zip(seals, batch, strict=False):
                if _is_within(sealed.record, start, end):
                    yield _line(before, sealed)

    def _batches(self) -> Iterator[tuple[Seal, Sequence[SealedRecord], bool]]:
        """The chain from its anchor, each batch with the seal before it and whether the database is gapless.

        Retention may remove the beginning meanwhile: then the new anchor is the seal before.
        """
        previous: Seal | None = None
        while True:
            with self.store.read() as tx:
                previous, batch = _next(tx, previous)
                gapless = tx.seals.is_gapless
            if not batch:
                return
            yield previous, batch, gapless
            previous = batch[-1].seal

    def _anchor(self) -> Seal:
        with self.store.read() as tx:
            return tx.seals.anchor() or GENESIS

    def _with_the_rest(self, checked: int, head: Seal) -> AuditProof:
        """The report on a sound chain, with what is beside it and behind its end."""
        unsealed, after = 0, _BEFORE_ALL
        while True:
            with self.store.read() as tx:
                window = tx.seals.window(after, limit=_WINDOW)
                if window is None:
                    return _end(tx, checked, head, unsealed)
                waiting = window.records - window.sealed
                intruder = tx.seals.slipped_in(after, window.last) if waiting else None
            if intruder:
                return _proof(checked, head, "a record was written where the chain had passed", intruder)
            unsealed, after = unsealed + waiting, window.last


def _next(tx: Transaction, previous: Seal | None) -> tuple[Seal, Sequence[SealedRecord]]:
    """The seal to go on from and the next batch, read again where retention moved the anchor meanwhile."""
    while True:
        anchor = tx.seals.anchor() or GENESIS
        start = previous if previous and previous.number >= anchor.number else anchor
        batch = tx.seals.after(start.number, limit=_READ_BATCH)
        if (tx.seals.anchor() or GENESIS).number <= start.number:
            return start, batch


def _end(tx: Transaction, checked: int, head: Seal, unsealed: int) -> AuditProof:
    tail = tx.seals.tail()
    removed = tail.missing and tx.seals.is_gapless
    reason = "a record after the last seal was removed" if removed else None
    return _proof(checked, head, reason, unsealed=unsealed, missing=tail.missing)


def _proof(
    checked: int,
    head: Seal,
    reason: str | None,
    first_broken: str | None = None,
    *,
    unsealed: int = 0,
    missing: int = 0,
) -> AuditProof:
    return {
        "valid": reason is None,
        "checked": checked,
        "firstBroken": first_broken,
        "head": {"seal": head.number, "hash": head.hash},
        "reason": reason,
        "unsealed": unsealed,
        "missing": missing,
    }


def _event_id(sealed: SealedRecord) -> str:
    return str(sealed.record["event_id"] if sealed.record else sealed.seal.event_id)


def _is_within(record: Row | None, start: datetime | None, end: datetime | None) -> bool:
    """Whether the record is of that time; one that is gone or forged is always shown."""
    written = record["timestamp"] if record else None
    if not isinstance(written, int):
        return True
    return (start is None or written >= microseconds(start)) and (end is None or written < microseconds(end))


def _line(previous: Seal, sealed: SealedRecord) -> dict[str, Any]:
    return {
        "seal": sealed.seal.number,
        "previous": previous.hash,
        "hash": sealed.seal.hash,
        "record": sealed.record,
    }
