"""Sealing of audit records, and verification and export of the hash chain.

SQLite has one writer at a time, so a record is sealed in the transaction that writes it. On PostgreSQL, moving the head
of the chain there would let only one exchange at a time commit across all replicas. So a sealer follows, in batches and
one sealer at a time; if it is killed, its last batch is rolled back. On SQLite it only seals records of earlier versions.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

import msgspec
from typing_extensions import TypedDict

from sentryagent_idp.domain import audit_chain
from sentryagent_idp.domain.audit_chain import (
    GENESIS,
    Checkpoint,
    Position,
    Row,
    Seal,
    SealedRecord,
    microseconds,
)
from sentryagent_idp.errors import AdminRefused, RateLimited
from sentryagent_idp.ports import Clock, Store, Transaction

INTERVAL_SECONDS = 0.5
"""How often a sealer looks for new records: half the time that a record may stay unsealed."""
BUSY_INTERVAL_SECONDS = 0.1
"""How soon it looks again after it found some: a small batch delays no exchange, half a second's records would."""

_SEAL_BATCH = 100
"""Records per transaction: few, because nothing else can write to SQLite meanwhile."""
_REST_SECONDS = 0.01
"""The pause between two full batches: a process that polls for SQLite's lock would find no gap without it."""

_GAPS_STAY = timedelta(minutes=10)
"""Far longer than the database lets our transactions stay open (30 s without a statement, 3.5 s per statement)."""

_READ_BATCH = 1000
_BEFORE_ALL = -(2**63)
"""Our records have positive sequence numbers; a forged one may have any."""
_BEHIND_ALL = 2**63 - 1

_ANSWER_SECONDS = 4.0
"""The time limit of a check on request: with the statements still running then, the response takes less than 10 s."""
_CHECKPOINT = "audit_checkpoint"
_WATCH_BATCH = 200
_WATCH_REST_SECONDS = 0.2
"""The pause between two batches of a background check, which would otherwise take half a core from requests."""
_BATCHES_OF_A_RUN = 10
"""The batches of a background check: 2,000 records, a tenth of a second of one core."""
WATCH_SECONDS = 8
"""The time between two background checks: with its pauses, one runs every 10 s and takes a hundredth of a core."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals newly committed records; every replica has one."""

    store: Store
    clock: Clock
    rest: Callable[[float], object] = time.sleep

    def run(self) -> int:
        """Seal all unsealed records, unless another sealer does; returns how many. Raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            if not tx.seals.has_work():
                return 0
        total = 0
        while True:
            sealed = self._batch()
            total += sealed
            if sealed < _SEAL_BATCH:
                return total
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
    """The number and the hash of a seal; 0 and 64 zeros if nothing is sealed yet."""

    seal: int
    hash: str


class AuditProof(TypedDict):
    """The result of a check of the audit's hash chain; `unsealed` records get their seal within about a second.

    `head` is the last seal, or the last valid one of a broken chain: store it elsewhere, to detect whether the end of the
    chain was removed. `checked` is the number of seals up to `checkedUpTo`, the last one that was checked.
    """

    valid: bool
    checked: int
    checkedUpTo: int
    firstBroken: str | None
    head: SealedUpTo
    reason: str | None
    unsealed: int
    missing: int


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of a check up to a position: a problem, the end of the chain, or neither if there is more to check."""

    position: Position
    reason: str | None = None
    first_broken: str | None = None
    is_end: bool = False


@dataclass(frozen=True, slots=True)
class AuditChain:
    """Reads the chain in batches, so that a long chain takes time but no memory."""

    store: Store
    timer: Callable[[], float] = time.monotonic
    _checking: Lock = field(default_factory=Lock)

    def verify(self) -> AuditProof:
        """Check the records after the checkpoint, and the next batch of its round, for a few seconds at most.

        `firstBroken` is the event id of the first record that is not confirmed. Raises `RateLimited` if this process is
        already checking, because checks of a long chain must not take every thread, and `DatabaseUnavailable`.
        """
        if not self._checking.acquire(blocking=False):
            raise RateLimited("A check of the chain is already running; wait for its result.", retry_after=5)
        try:
            deadline = self.timer() + _ANSWER_SECONDS
            checkpoint = self.checkpoint()
            found = self.check(checkpoint.round, lambda: False)
            if not found.reason:
                found = self.check(checkpoint.up_to, lambda: self.timer() < deadline)
            return self.proof(found)
        finally:
            self._checking.release()

    def verify_all(self, seal: int | None = None, expected: str | None = None) -> AuditProof:
        """Check all of the chain, or the part after a seal with the expected hash; raises `DatabaseUnavailable`."""
        start = self._anchor()
        if seal is not None:
            with self.store.read() as tx:
                kept = tx.seals.get(seal) or (GENESIS if seal == 0 and start == GENESIS else None)
            if kept is None or kept.hash != expected:
                reason = f"seal {seal} has a different hash" if kept else _no_seal(seal, start)
                return self.proof(_Found(Position(start, _BEFORE_ALL), reason))
            return self.proof(self.check(Position(kept, kept.sequence)), kept)
        return self.proof(self.check(Position(start, _BEFORE_ALL)))

    def checkpoint(self) -> Checkpoint:
        """How far the background checks got; the beginning of the chain if there were none."""
        with self.store.read() as tx:
            return load_checkpoint(tx) or start_of(tx)

    def check(
        self, position: Position, goes_on: Callable[[], bool] = lambda: True, limit: int | None = None
    ) -> _Found:
        """Check the chain after a position, batch by batch, to its end or until `goes_on` returns false after a batch."""
        for previous, batch, gapless in self._batches(position.seal, limit):
            good, reason = audit_chain.first_problem(previous, batch, gapless=gapless)
            seal = batch[good - 1].seal if good else previous
            if reason:
                return _Found(Position(seal, position.passed), reason, _event_id(batch[good]))
            passed = max(position.passed, *(sealed.seal.sequence for sealed in batch))
            found = self._passed(Position(seal, position.passed), passed)
            if found.reason:
                return found
            position = Position(seal, passed)
            if not goes_on():
                return found
        return self._at_the_end(position)

    def proof(self, found: _Found, base: Seal | None = None) -> AuditProof:
        """The report on a check that began at `base`, by default at the beginning of the chain."""
        with self.store.read() as tx:
            anchor, head, tail = tx.seals.anchor() or GENESIS, tx.seals.head() or GENESIS, tx.seals.tail()
            removed = found.is_end and tail.missing and tx.seals.is_gapless
        reason = found.reason or ("a record after the last seal was removed" if removed else None)
        checked = min(max(found.position.seal, anchor, key=_number), head, key=_number)
        last = checked if reason or found.is_end else head
        return {
            "valid": reason is None,
            "checked": checked.number - (base or anchor).number,
            "checkedUpTo": checked.number,
            "firstBroken": found.first_broken,
            "head": {"seal": last.number, "hash": last.hash},
            "reason": reason,
            "unsealed": tail.unsealed,
            "missing": tail.missing,
        }

    def sealed(
        self, start: datetime | None = None, end: datetime | None = None, after: Seal | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the sealed records after a seal, from `start` to before `end`, in chain order, each with its seal.

        A removed record is represented by its seal alone. Raises `DatabaseUnavailable`.
        """
        if after is None and start is not None:
            with self.store.read() as tx:
                after = tx.seals.before(start)
        for previous, batch, _ in self._batches(after):
            seals = [previous, *(sealed.seal for sealed in batch)]
            for before, sealed in zip(seals, batch, strict=False):
                if _is_within(sealed.record, start, end):
                    yield _line(before, sealed)

    def seal_to_follow(self, number: int) -> Seal:
        """Return the seal with this number, after which an export continues.

        Raises `AdminRefused` if the seal is gone, because records after it may be gone too, and `DatabaseUnavailable`.
        """
        with self.store.read() as tx:
            anchor, found = tx.seals.anchor() or GENESIS, tx.seals.get(number)
        if found is None and number != anchor.number:
            raise AdminRefused(f"--after: {_no_seal(number, anchor)}")
        return found or anchor

    def _batches(
        self, previous: Seal | None = None, limit: int | None = None
    ) -> Iterator[tuple[Seal, Sequence[SealedRecord], bool]]:
        """Yield the chain after a seal or the anchor: batches, the seal before each, and whether the database is gapless.

        If retention removes the beginning meanwhile, the seal before is the new anchor.
        """
        while True:
            with self.store.read() as tx:
                previous, batch = _next(tx, previous, limit or _READ_BATCH)
                gapless = tx.seals.is_gapless
            if not batch:
                return
            yield previous, batch, gapless
            previous = batch[-1].seal

    def _anchor(self) -> Seal:
        with self.store.read() as tx:
            return tx.seals.anchor() or GENESIS

    def _passed(self, position: Position, up_to: int) -> _Found:
        """Check that every record after the position, up to a sequence number, has a seal."""
        with self.store.read() as tx:
            intruder = tx.seals.slipped_in(position.passed, up_to)
        if intruder:
            return _Found(position, "a record was inserted before the last seal", intruder)
        return _Found(Position(position.seal, up_to))

    def _at_the_end(self, position: Position) -> _Found:
        """Check that the chain still reaches the position, and that no record was written where the chain had passed."""
        with self.store.read() as tx:
            head = tx.seals.head() or GENESIS
        kept = position.seal
        if head.number < kept.number or (head.number == kept.number and head.hash != kept.hash):
            return _Found(position, f"the end of the chain was removed: it had seal {kept.number}")
        found = self._passed(position, _BEHIND_ALL)
        return found if found.reason else _Found(position, is_end=True)


@dataclass(frozen=True, slots=True)
class ChainWatch:
    """Advances the checkpoint in the background, a part of the chain at a time; every replica has one.

    New records are checked first, then the next part of the round, so a change to an old record is found within one
    round. A position never moves past a broken link, so each run finds it again until it is repaired.
    """

    chain: AuditChain
    report: Callable[[AuditProof], object]
    rest: Callable[[float], object] = time.sleep

    def run(self) -> None:
        """Check the next part of the chain and report the result; raises `DatabaseUnavailable`."""
        before = self.chain.checkpoint()
        batches = iter(range(_BATCHES_OF_A_RUN))
        new = self._check(before.up_to, batches)
        again = self._check(before.round, batches)
        is_round = again.is_end or again.position.seal.number >= new.position.seal.number
        with self.chain.store.read() as tx:
            place = start_of(tx).round if is_round and not again.reason else again.position
        self._save(before, Checkpoint(new.position, place))
        self.report(self.chain.proof(again if again.reason else new))

    def _check(self, position: Position, batches: Iterator[int]) -> _Found:
        def goes_on() -> bool:
            self.rest(_WATCH_REST_SECONDS)
            return next(batches, None) is not None

        return self.chain.check(position, goes_on, _WATCH_BATCH)

    def _save(self, before: Checkpoint, after: Checkpoint) -> None:
        """Store the checkpoint, unless another process stored one meanwhile."""
        if after == before:
            return
        with self.chain.store.write(durable=False) as tx:  # losing it only means more to check again
            if (load_checkpoint(tx) or start_of(tx)) == before:
                tx.settings.put(_CHECKPOINT, msgspec.to_builtins(after))


def load_checkpoint(tx: Transaction) -> Checkpoint | None:
    """The stored checkpoint, or `None` if it is missing or cannot be read."""
    try:
        return msgspec.convert(tx.settings.get(_CHECKPOINT), Checkpoint)
    except msgspec.ValidationError:
        return None


def start_of(tx: Transaction) -> Checkpoint:
    """The checkpoint at the beginning of the chain."""
    beginning = Position(tx.seals.anchor() or GENESIS, _BEFORE_ALL)
    return Checkpoint(beginning, beginning)


def _next(tx: Transaction, previous: Seal | None, limit: int) -> tuple[Seal, Sequence[SealedRecord]]:
    """Return the seal to continue from and the next batch; reads again if retention moved the anchor meanwhile."""
    while True:
        anchor = tx.seals.anchor() or GENESIS
        start = previous if previous and previous.number >= anchor.number else anchor
        batch = tx.seals.after(start.number, limit=limit)
        if (tx.seals.anchor() or GENESIS).number <= start.number:
            return start, batch


def _no_seal(number: int, anchor: Seal) -> str:
    if number < anchor.number:
        return f"seal {number} is gone with its record; the chain begins after seal {anchor.number}"
    return f"there is no seal {number}"


def _number(seal: Seal) -> int:
    return seal.number


def _event_id(sealed: SealedRecord) -> str:
    return str(sealed.record["event_id"] if sealed.record else sealed.seal.event_id)


def _is_within(record: Row | None, start: datetime | None, end: datetime | None) -> bool:
    """Whether the record is from that time; a record that is gone or forged is always included."""
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
