"""The audit, on both engines."""

from datetime import timedelta
from hashlib import sha256
from uuid import UUID, uuid4

import pytest

from kit.records import keep
from sentryagent_idp.domain.audit import Action, AuditFilter, Order, Outcome
from sentryagent_idp.store import audit
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.sealing import Sealer


def event_ids(database, wanted, *, page=1, limit=100):
    """The numbers of the events that match a filter, in order, and their total."""
    with database.read() as tx:
        found = tx.audit.page(wanted, page=page, limit=limit, is_counted=True)
    return [record.event_id.int for record in found.data], found.total


@pytest.fixture
def append(database, make_record):
    """Write a record with these fields and return it."""

    def append(**members):
        record = make_record(**members)
        keep(database, record)
        return record

    return append


@pytest.fixture
def seal(database, now):
    """Seal all unsealed records."""
    return Sealer(database, lambda: now).run


def test_every_member_comes_back_as_it_was_written(database, append):
    """A record is read back equal; its details keep nesting, NUL and unpaired surrogates."""
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
        assert tx.audit.page(AuditFilter(), limit=20).data == [bare, record]


def test_newest_first_is_the_order_of_writing(database, append, now):
    """The record written last comes first, even if timestamps are equal or replicas' clocks differ."""
    append(event_id=UUID(int=5))
    append(event_id=UUID(int=9))
    append(event_id=UUID(int=1), timestamp=now - timedelta(seconds=1))
    assert event_ids(database, AuditFilter()) == ([1, 9, 5], 3)
    assert event_ids(database, AuditFilter(), page=2, limit=2) == ([5], 3)
    assert event_ids(database, AuditFilter(), page=3, limit=2) == ([], 3)


def test_several_records_keep_their_order(database, make_record, now):
    """Records that are written together keep their order and their values, optional fields included."""
    records = [
        make_record(address=None if number % 2 else "192.0.2.7", timestamp=now) for number in range(70)
    ]
    with database.write() as tx:
        tx.audit.append_all(records)
    with database.read() as tx:
        assert tx.audit.page(AuditFilter(), limit=100).data == records[::-1]


@pytest.mark.parametrize(
    ("order", "seen", "found"),
    [
        ("newest", 1, []),
        ("newest", 2, [1]),
        ("newest", 3, [2, 1]),
        ("oldest", 1, [2, 3]),
        ("oldest", 2, [3]),
        ("oldest", 3, []),
    ],
)
def test_after_is_what_follows_in_that_order(database, append, seal, order, seen, found):
    """`after` returns the records that follow the given event, on one page or on several."""
    for number in (1, 2, 3):
        append(event_id=UUID(int=number))
    seal()
    wanted = AuditFilter(after=UUID(int=seen), order=Order(order))
    assert event_ids(database, wanted) == (found, len(found))
    assert event_ids(database, wanted, page=2, limit=1) == (found[1:2], len(found))


@pytest.mark.parametrize("order", Order)
def test_an_unknown_event_is_no_place_to_begin(database, append, seal, order):
    """`after` with an unknown event gives `None`: a reader would take an empty page for the end of the log."""
    append(event_id=UUID(int=1))
    seal()
    with database.read() as tx:
        for unknown in (UUID(int=9), UUID(int=0)):
            assert tx.audit.page(AuditFilter(after=unknown, order=order), limit=20) is None
    assert event_ids(database, AuditFilter(after=UUID(int=1), order=order)) == ([], 0)


def follow(database, after=None, *, limit=2, **filters):
    """Poll with `next` until there are no more records; return the records read and the last position."""
    read = []
    while True:
        with database.read() as tx:
            found = tx.audit.page(AuditFilter(after=after, order=Order.OLDEST, **filters), limit=limit)
        read += [record.event_id.int for record in found.data]
        if found.next is None:
            return read, after
        after = found.next


def test_a_poller_gets_each_record_once(database, append, seal):
    """A poller also gets the records that were written between two of its requests."""
    for number in (1, 2, 3):
        append(event_id=UUID(int=number))
    seal()
    first, _ = follow(database)
    for number in (4, 5):
        append(event_id=UUID(int=number))
    seal()
    second, _ = follow(database, UUID(int=first[-1]))
    assert (first, second) == ([1, 2, 3], [4, 5])


def test_a_poller_misses_no_late_commit(url, make_record, now):
    """Records of a transaction that commits late are returned next, and no record is returned twice."""
    with Database(url) as database, Database(url) as other:
        sealer = Sealer(other, lambda: now)
        keep(database, make_record(event_id=UUID(int=1)))
        sealer.run()
        if database.is_local:
            with database.write() as tx:  # SQLite has one writer at a time, so there are no late commits
                tx.audit.append(make_record(event_id=UUID(int=2)))
                assert follow(other, UUID(int=1)) == ([], UUID(int=1))
            keep(database, make_record(event_id=UUID(int=3)))
            assert follow(database, UUID(int=1))[0] == [2, 3]
            return
        with database.write() as tx:
            tx.audit.append(make_record(event_id=UUID(int=2)))
            keep(other, make_record(event_id=UUID(int=3)))
            assert follow(other, UUID(int=1))[0] == []  # not sealed yet
            sealer.run()
            assert follow(other, UUID(int=1))[0] == [3]
        assert follow(other, UUID(int=3))[0] == []
        sealer.run()
        assert follow(database, UUID(int=3))[0] == [2]
        assert follow(database)[0] == [1, 3, 2]


def test_a_poller_goes_on_after_all_was_removed(database, append, seal, now):
    """A poller can resume at the last event that retention removed, but not earlier: the records since are lost."""
    for number in (1, 2):
        append(event_id=UUID(int=number))
    seal()
    with database.write() as tx:
        assert tx.seals.purge(now + timedelta(days=1), limit=10) == 2
    append(event_id=UUID(int=3))
    seal()
    assert follow(database, UUID(int=2))[0] == [3]
    with database.read() as tx:
        assert tx.audit.page(AuditFilter(after=UUID(int=1), order=Order.OLDEST), limit=20) is None


def test_a_reader_may_begin_at_an_event_without_a_seal(database, append, seal):
    """A poller that wants only new records starts at the newest event of the log, which may not be sealed yet."""
    append(event_id=UUID(int=1))
    assert follow(database, UUID(int=1))[0] == []
    seal()
    append(event_id=UUID(int=2))
    seal()
    assert follow(database, UUID(int=1))[0] == [2]


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("named", ["outcome", "agent_id", "span"])
def test_no_page_looks_at_the_whole_log(database, append, seal, monkeypatch, now, order, named):
    """If no index serves a filter, each page examines only a few records, and `next` is where to go on."""
    monkeypatch.setattr(audit, "_MAX_EXAMINED", 3)
    for number in range(1, 9):
        about = {"agent_id": UUID(int=7), "actor": "b" if number == 4 else "a"}
        outcome = Outcome.FAILURE if number == 4 else Outcome.SUCCESS
        append(event_id=UUID(int=number), outcome=outcome, timestamp=now + timedelta(seconds=number), **about)
    seal()
    filters = {
        "outcome": {"outcome": "failure"},
        "agent_id": {"agent_id": UUID(int=7), "actor": "b"},
        "span": {"start": now + timedelta(seconds=4), "end": now + timedelta(seconds=5)},
    }[named]

    pages, after = [], None
    while after is not None or not pages:
        with database.read() as tx:
            found = tx.audit.page(AuditFilter(after=after, order=order, **filters), limit=5)
        pages.append([record.event_id.int for record in found.data])
        after = found.next

    assert pages == [[], [4], []]


def test_a_total_is_not_counted_for_ever(database, append, monkeypatch):
    """If there are too many records to count, the total is omitted."""
    monkeypatch.setattr(audit, "_MAX_COUNTED", 2)
    append(event_id=UUID(int=1))
    append(event_id=UUID(int=2))
    assert event_ids(database, AuditFilter()) == ([2, 1], 2)
    append(event_id=UUID(int=3))
    assert event_ids(database, AuditFilter()) == ([3, 2, 1], None)
    assert event_ids(database, AuditFilter(event_id=UUID(int=3))) == ([3], 1)


def test_a_total_is_counted_only_if_it_is_asked_for(database, append):
    """A total is counted only on request, because counting gets slower as the log grows."""
    append()
    with database.read() as tx:
        assert tx.audit.page(AuditFilter(), limit=1).total is None


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize(
    "distance", [timedelta(0), timedelta(minutes=1), timedelta(hours=1), timedelta(days=400)]
)
def test_a_span_finds_records_whose_clocks_differ(database, append, seal, now, order, distance):
    """Replicas' clocks differ by seconds, so records are not written exactly in the order of their timestamps."""
    for number, ahead in enumerate((0, 25, -20, 30, 0), 1):
        append(event_id=UUID(int=number), timestamp=now + number * distance + timedelta(seconds=ahead))
    seal()
    middle = [now + 2 * distance, now + 4 * distance]
    found, _ = event_ids(database, AuditFilter(start=middle[0], end=middle[1], order=order))
    times = {n: now + n * distance + timedelta(seconds=a) for n, a in enumerate((0, 25, -20, 30, 0), 1)}
    expected = [n for n, time in times.items() if middle[0] <= time < middle[1]]
    assert found == (expected if order is Order.OLDEST else expected[::-1])


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (AuditFilter(action="token.issued"), [1]),
        (AuditFilter(action="no such action"), []),
        (AuditFilter(outcome="failure"), [2]),
        (AuditFilter(actor="admin-cli"), [1]),
        (AuditFilter(actor="admin-cl_"), []),
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
    """Each filter compares its whole field, the repository without case, and filters are ANDed."""
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
    """An over-long repository name is recorded and found: a hostile token must not prevent its audit record."""
    # PostgreSQL compresses index entries, so the name must not compress well.
    name = "Octo/" + "".join(sha256(bytes([number])).hexdigest() for number in range(200))
    record = append(actor=f"repo:{name}", repository=name)
    with database.read() as tx:
        assert tx.audit.page(AuditFilter(repository=name.upper()), page=1, limit=20).data == [record]


def test_a_record_is_kept_only_with_what_it_records(database, make_record):
    """An audit record is rolled back with its transaction."""

    def fail():
        with database.write() as tx:
            tx.audit.append(make_record())
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert event_ids(database, AuditFilter()) == ([], 0)
