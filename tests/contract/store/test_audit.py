"""The audit, on both engines."""

from datetime import timedelta
from hashlib import sha256
from uuid import UUID, uuid4

import pytest

from kit.records import keep
from sentryagent_idp.domain.audit import Action, AuditFilter, Outcome


def event_ids(database, wanted, *, page=1, limit=100):
    """The numbers of the events that a filter finds, in their order, checked against the total."""
    with database.read() as tx:
        found = tx.audit.page(wanted, page=page, limit=limit)
    return [record.event_id.int for record in found.data], found.total


@pytest.fixture
def append(database, make_record):
    """Writes a record of these members and returns it."""

    def append(**members):
        record = make_record(**members)
        keep(database, record)
        return record

    return append


def test_every_member_comes_back_as_it_was_written(database, append):
    """A record is read back equal; details keep nesting, NUL and unpaired surrogates."""
    record = append(
        action=Action.TOKEN_REFUSED,
        outcome=Outcome.FAILURE,
        actor="repo:Octo/Repo",
        agent_id=uuid4(),
        policy_id=uuid4(),
        policy_version=4,
        repository="Octo/Repo",
        details={"jti": "a\0b", "odd": "\ud800", "failed": [{"condition": "branch", "actual": None}]},
    )
    bare = append(address=None)
    with database.read() as tx:
        assert tx.audit.page(AuditFilter(), page=1, limit=20).data == [bare, record]


def test_newest_first_is_the_order_of_writing(database, append, now):
    """Of one moment, or of replicas whose clocks differ, the record that was written last comes first."""
    append(event_id=UUID(int=5))
    append(event_id=UUID(int=9))
    append(event_id=UUID(int=1), timestamp=now - timedelta(seconds=1))
    assert event_ids(database, AuditFilter()) == ([1, 9, 5], 3)
    assert event_ids(database, AuditFilter(), page=2, limit=2) == ([5], 3)
    assert event_ids(database, AuditFilter(), page=3, limit=2) == ([], 3)


def test_several_records_keep_their_order(database, make_record, now):
    """Records that are written together are in the log in their order, each as it was, with or without its options."""
    records = [
        make_record(address=None if number % 2 else "192.0.2.7", timestamp=now) for number in range(70)
    ]
    with database.write() as tx:
        tx.audit.append_all(records)
    with database.read() as tx:
        assert tx.audit.page(AuditFilter(), page=1, limit=100).data == records[::-1]


@pytest.mark.parametrize(("seen", "found"), [(1, [3, 2]), (2, [3]), (3, []), (99, [])])
def test_after_is_what_was_written_since(database, append, seen, found):
    """`after` gives the records written after the one already seen; an unknown event has none after it."""
    for number in (1, 2, 3):
        append(event_id=UUID(int=number))
    assert event_ids(database, AuditFilter(after=UUID(int=seen))) == (found, len(found))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (AuditFilter(action="token.issued"), [1]),
        (AuditFilter(action="no such action"), []),
        (AuditFilter(outcome="failure"), [2]),
        (AuditFilter(actor="admin:root"), [1]),
        (AuditFilter(actor="admin:roo_"), []),
        (AuditFilter(agent_id=UUID(int=7)), [2]),
        (AuditFilter(policy_id=UUID(int=8)), [2]),
        (AuditFilter(policy_id=UUID(int=8), policy_version=3), [2]),
        (AuditFilter(policy_version=4), []),
        (AuditFilter(repository="OCTO/repo"), [2]),
        (AuditFilter(repository="octo/%"), []),
        (AuditFilter(request_id="r-2"), [2]),
        (AuditFilter(address="192.0.2.7"), [2, 1]),
        (AuditFilter(event_id=UUID(int=1)), [1]),
        (AuditFilter(action="token.issued", outcome="failure"), []),
    ],
)
def test_filters_are_exact_and_all_of_them_count(database, append, wanted, found):
    """Each filter compares its member as a whole, the repository without case."""
    append(event_id=UUID(int=1), request_id="r-1")
    append(
        event_id=UUID(int=2),
        request_id="r-2",
        action=Action.POLICY_UPDATED,
        outcome=Outcome.FAILURE,
        actor="repo:Octo/Repo",
        agent_id=UUID(int=7),
        policy_id=UUID(int=8),
        policy_version=3,
        repository="Octo/Repo",
    )
    assert event_ids(database, wanted) == (found, len(found))


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [(None, None, [2, 1, 0]), (1, None, [2, 1]), (None, 1, [0]), (0, 2, [1, 0]), (2, 2, []), (3, None, [])],
)
def test_a_span_takes_its_start_and_not_its_end(database, append, now, start, end, found):
    """`start` is inclusive and `end` exclusive, to the microsecond."""

    def moment(microseconds):
        return None if microseconds is None else now + timedelta(microseconds=microseconds)

    for number in (0, 1, 2):
        append(event_id=UUID(int=number), timestamp=moment(number))
    assert event_ids(database, AuditFilter(start=moment(start), end=moment(end))) == (found, len(found))


def test_a_record_is_never_impossible(database, append):
    """A name far longer than GitHub's is recorded and found: a hostile token must not stop its own audit."""
    # PostgreSQL compresses what it indexes, so the name has no pattern.
    name = "Octo/" + "".join(sha256(bytes([number])).hexdigest() for number in range(200))
    record = append(actor=f"repo:{name}", repository=name)
    with database.read() as tx:
        assert tx.audit.page(AuditFilter(repository=name.upper()), page=1, limit=20).data == [record]


def test_a_record_is_kept_only_with_what_it_records(database, make_record):
    """The record of a transaction that fails is gone with it."""

    def fail():
        with database.write() as tx:
            tx.audit.append(make_record())
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert event_ids(database, AuditFilter()) == ([], 0)
