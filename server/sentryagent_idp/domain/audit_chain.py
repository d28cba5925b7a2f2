"""The audit's hash chain: each record is sealed by a hash over the hash before it and the whole record.

Whoever changes, removes or swaps records must write every later hash again, also those that others have recorded.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

Row = Mapping[str, str | int | None]
"""A record as the database has it, column by column: hashed so, nothing of it can be read in two ways.

`timestamp` is in microseconds since the epoch, `details` is JSON text.
"""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CANONICAL = msgspec.json.Encoder(order="sorted")


class Seal(msgspec.Struct, frozen=True):
    """One link: the number of the seal, the sequence number and the id of its record, and the hash up to it (hexadecimal)."""

    number: int
    sequence: int
    event_id: str
    hash: str


GENESIS = Seal(number=0, sequence=0, event_id=str(UUID(int=0)), hash="0" * 64)
"""What the first record is chained to."""


class SealedRecord(msgspec.Struct, frozen=True):
    """A seal with the record that it was made for, as far as that one is still there."""

    seal: Seal
    record: Row | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequence numbers, both ends included, that no record had when a later one was sealed.

    The transaction that took them may have failed, or may commit yet.
    """

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class AuditTail:
    """How many records wait for their seal, and how many numbers after the last sealed record no record has."""

    unsealed: int
    missing: int


class Position(msgspec.Struct, frozen=True):
    """How far a check got: the last seal that was in order, and the sequence number up to which no record lacks its seal."""

    seal: Seal
    passed: int


class Checkpoint(msgspec.Struct, frozen=True):
    """How far checks got in the background: one that follows the end of the chain, and one that goes round it again and again."""

    up_to: Position
    round: Position


def microseconds(moment: datetime) -> int:
    """A time as a row has it: whole microseconds since the epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def canonical(record: Row) -> bytes:
    """The record as RFC 8785 (JSON Canonicalization Scheme) writes it; text and whole numbers need no more than this."""
    # What a record of ours never holds, such as bytes, gets some hash, too: a forged row must be found, not crash.
    return _CANONICAL.encode(record)


def link(previous: Seal, record: Row) -> Seal:
    """The seal of `record` after `previous`."""
    before = f"{previous.hash}".encode()  # formatted: a forged hash may be no text at all
    return Seal(
        number=previous.number + 1,
        sequence=int(record["sequence"] or 0),
        event_id=str(record["event_id"]),
        hash=hashlib.sha256(before + canonical(record)).hexdigest(),
    )


def chain(previous: Seal, records: Iterable[Row]) -> list[Seal]:
    """The seals of several records in their order."""
    seals = [previous]
    for record in records:
        seals.append(link(seals[-1], record))
    return seals[1:]


def gaps(after: int, sequences: Iterable[int]) -> list[Gap]:
    """What is missing between `after` and the highest of `sequences`, where lower ones come first."""
    found = []
    for sequence in sequences:
        if sequence > after + 1:
            found.append(Gap(after + 1, sequence - 1))
        after = max(after, sequence)
    return found


def fault(previous: Seal, sealed: SealedRecord, *, gapless: bool) -> str | None:
    """What is wrong with a link after `previous`, or `None`.

    `gapless` says that the database never leaves a sequence number out.
    """
    seal, record = sealed.seal, sealed.record
    if seal.number != previous.number + 1:
        return f"seal {previous.number + 1} was removed"
    if record is None:
        return f"the record of seal {seal.number} was removed"
    if link(previous, record) != seal:
        return f"seal {seal.number} or its record was changed"
    if gapless and seal.sequence != previous.sequence + 1:
        return f"a record before seal {seal.number} was removed"
    return None


def first_fault(previous: Seal, batch: Sequence[SealedRecord], *, gapless: bool) -> tuple[int, str | None]:
    """How many links of the batch are in order, and what is wrong with the next one, if there is one."""
    for position, sealed in enumerate(batch):
        found = fault(previous, sealed, gapless=gapless)
        if found:
            return position, found
        previous = sealed.seal
    return len(batch), None
