"""The hash chain of the audit, without a database."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sentryagent_idp.domain import audit_chain
from sentryagent_idp.domain.audit_chain import (
    GENESIS,
    Gap,
    SealedRecord,
    canonical,
    chain,
    first_problem,
    gaps,
    link,
)


def row(sequence, **columns):
    return {
        "sequence": sequence,
        "event_id": f"event-{sequence}",
        "actor": "admin-cli",
        "details": "{}",
    } | columns


def sealed(*records):
    return [SealedRecord(*pair) for pair in zip(chain(GENESIS, records), records, strict=True)]


def test_hash_is_sha256_over_the_hash_before_and_the_record():
    """A seal can be recomputed with SHA-256 and sorted JSON."""
    text = '{"actor":"admin-cli","details":"{}","event_id":"event-1","sequence":1}'

    seal = link(GENESIS, row(1))

    assert (seal.number, seal.sequence, seal.event_id) == (1, 1, "event-1")
    assert seal.hash == hashlib.sha256(("0" * 64 + text).encode()).hexdigest()


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.binary() | st.floats()))
def test_canonical_form_of_anything(record):
    """No forged value stops the check, and genuine values are read back equal."""
    text = canonical(record).decode(errors="surrogatepass")

    if all(isinstance(value, str | int | None) for value in record.values()):
        assert json.loads(text) == record


def test_sound_chain():
    """A chain in order has no fault, whatever anchor it begins with."""
    batch = sealed(row(1), row(2), row(3))

    assert first_problem(GENESIS, batch, gapless=True) == (3, None)
    assert first_problem(batch[0].seal, batch[1:], gapless=True) == (2, None)
    assert first_problem(GENESIS, [], gapless=True) == (0, None)


def changed_record(batch):
    batch[1] = replace(batch[1], record=row(2, actor="mallory"))


def added_column(batch):
    batch[1] = replace(batch[1], record=row(2, more=None))


def removed_record(batch):
    batch[1] = replace(batch[1], record=None)


def swapped_records(batch):
    first, second = batch[1].record, batch[2].record
    batch[1] = replace(batch[1], record=second)
    batch[2] = replace(batch[2], record=first)


def swapped_contents(batch):
    first, second = batch[1].record, batch[2].record
    batch[1] = replace(batch[1], record=second | {"sequence": 2})
    batch[2] = replace(batch[2], record=first | {"sequence": 3})


def swapped_seals(batch):
    first, second = batch[1].seal, batch[2].seal
    batch[1] = replace(batch[1], seal=replace(second, number=2))
    batch[2] = replace(batch[2], seal=replace(first, number=3))


def changed_hash(batch):
    batch[1] = replace(batch[1], seal=replace(batch[1].seal, hash="f" * 64))


def hash_of_another_kind(batch):
    batch[1] = replace(batch[1], seal=replace(batch[1].seal, hash=b"f"))


def changed_event_of_a_seal(batch):
    batch[1] = replace(batch[1], seal=replace(batch[1].seal, event_id="event-9"))


def removed_link(batch):
    del batch[1]


@pytest.mark.parametrize(
    ("tamper", "text"),
    [
        (changed_record, "seal 2 or its record was changed"),
        (added_column, "seal 2 or its record was changed"),
        (removed_record, "the record of seal 2 was removed"),
        (swapped_records, "seal 2 or its record was changed"),
        (swapped_contents, "seal 2 or its record was changed"),
        (swapped_seals, "seal 2 or its record was changed"),
        (changed_hash, "seal 2 or its record was changed"),
        (hash_of_another_kind, "seal 2 or its record was changed"),
        (changed_event_of_a_seal, "seal 2 or its record was changed"),
        (removed_link, "seal 2 was removed"),
    ],
)
def test_tampering_is_found_where_it_happened(tamper, text):
    """A check reports the first link that was tampered with, and the number of good links before it."""
    batch = sealed(row(1), row(2), row(3))
    tamper(batch)

    assert first_problem(GENESIS, batch, gapless=True) == (1, text)


def test_number_left_out():
    """A missing number means a removed record only if the database numbers records without gaps."""
    batch = sealed(row(1), row(3))

    assert first_problem(GENESIS, batch, gapless=False) == (2, None)
    assert first_problem(GENESIS, batch, gapless=True) == (1, "a record before seal 2 was removed")


@pytest.mark.parametrize(
    ("after", "sequences", "found"),
    [
        (0, [], []),
        (0, [1, 2], []),
        (4, [5, 7, 8], [Gap(6, 6)]),
        (0, [3, 10], [Gap(1, 2), Gap(4, 9)]),
        (9, [4, 6, 12], [Gap(10, 11)]),
    ],
)
def test_gaps(after, sequences, found):
    """Only missing numbers above the last sealed one are gaps."""
    assert gaps(after, sequences) == found


def test_chain_of_one_is_the_link():
    """Sealing in batches gives the same seals as sealing one by one."""
    records = [row(number) for number in (1, 2, 3)]
    one_by_one = [GENESIS]
    for record in records:
        one_by_one += audit_chain.chain(one_by_one[-1], [record])

    assert one_by_one[1:] == chain(GENESIS, records)
