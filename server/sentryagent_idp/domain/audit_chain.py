"""The audit's hash chain: each record is sealed by a hash over the previous hash and the whole record.

Whoever changes, removes or swaps records must rewrite every later hash, including those that others have recorded.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

Row = Mapping[str, str | int | None]
"""A record as the database has it, column by column; hashed in this form, it cannot be read in two ways.

`timestamp` is in microseconds since the epoch, `details` is JSON text.
"""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CANONICAL = msgspec.json.Encoder(order="sorted")


class Seal(msgspec.Struct, frozen=True):
    """A link of the chain: its number, the sequence number and id of its record, and the hash up to it (hexadecimal)."""

    number: int
    sequence: int
    event_id: str
    hash: str


GENESIS = Seal(number=0, sequence=0, event_id=str(UUID(int=0)), hash="0" * 64)
"""The seal that the first record is chained to."""


class SealedRecord(msgspec.Struct, frozen=True):
    """A seal and its record, which is `None` if it is gone."""

    seal: Seal
    record: Row | None


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of sequence numbers, both ends included, that no record had when a later one was sealed.

    The transaction that took them may have failed, or may still commit.
    """

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class AuditTail:
    """The number of unsealed records, and of sequence numbers after the last sealed record that no record has."""

    unsealed: int
    missing: int


class Position(msgspec.Struct, frozen=True):
    """How far a check got: the last valid seal, and the sequence number up to which every record has a seal."""

    seal: Seal
    passed: int


class Checkpoint(msgspec.Struct, frozen=True):
    """How far background checks got: `up_to` follows the end of the chain, `round` goes through all of it repeatedly."""

    up_to: Position
    round: Position


def microseconds(moment: datetime) -> int:
    """A time in the form of a row: whole microseconds since the epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def canonical(record: Row) -> bytes:
    """Encode the record by RFC 8785 (JSON Canonicalization Scheme); strings and integers only need sorted keys."""
    # Values that our records never contain, such as bytes, are hashed too: a forged row must not crash the check.
    return _CANONICAL.encode(record)


def link(previous: Seal, record: Row) -> Seal:
    """The seal of `record` after `previous`."""
    before = f"{previous.hash}".encode()  # formatted, because a forged hash may not be text
    return Seal(
        number=previous.number + 1,
        sequence=int(record["sequence"] or 0),
        event_id=str(record["event_id"]),
        hash=hashlib.sha256(before + canonical(record)).hexdigest(),
    )


def chain(previous: Seal, records: Iterable[Row]) -> list[Seal]:
    """The seals of several records after `previous`, in order."""
    seals = [previous]
    for record in records:
        seals.append(link(seals[-1], record))
    return seals[1:]


def gaps(after: int, sequences: Iterable[int]) -> list[Gap]:
    """The numbers missing between `after` and the highest of `sequences`, which are in ascending order."""
    found = []
    for sequence in sequences:
        if sequence > after + 1:
            found.append(Gap(after + 1, sequence - 1))
        after = max(after, sequence)
    return found


def link_problem(previous: Seal, sealed: SealedRecord, *, gapless: bool) -> str | None:
    """What is wrong with a link after `previous`, or `None`.

    `gapless` means that the database never skips a sequence number.
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


def first_problem(previous: Seal, batch: Sequence[SealedRecord], *, gapless: bool) -> tuple[int, str | None]:
    """How many links of the batch are valid, and what is wrong with the next one, or `None`."""
    for position, sealed in enumerate(batch):
        problem = link_problem(previous, sealed, gapless=gapless)
        if problem:
            return position, problem
        previous = sealed.seal
    return len(batch), None
