"""The tables of the audit's hash chain, on both engines."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from kit.audit_chain import purge, seals, told
from kit.records import keep
from kit.threads import at_once
from sentryagent_idp.domain.audit import AuditFilter
from sentryagent_idp.domain.audit_chain import GENESIS
from sentryagent_idp.store.audit import AuditTable
from sentryagent_idp.store.audit_seals import AuditSealTable
from sentryagent_idp.store.database import Database
from sentryagent_idp.use_cases.sealing import AuditChain, Sealer


@pytest.fixture
def sqlite(migrated_sqlite_url):
    """A migrated SQLite database."""
    with Database(migrated_sqlite_url) as database:
        yield database


def test_records_are_sealed_in_their_order(database, write, seal, verify):
    """Each record gets the next seal, once, and existing seals do not change."""
    write(1, 2)
    assert seal() == 2
    before = seals(database)
    write(3)
    assert seal() == 1
    assert seal() == 0
    after = seals(database)

    assert after[:2] == before
    assert [(it.number, it.event_id) for it in after] == [(it, str(UUID(int=it))) for it in (1, 2, 3)]
    assert told(verify()) == (3, 3, None, None, 0, 0)


def test_sqlite_seals_with_the_record(sqlite, make_record, clock):
    """Once the chain has begun, each record commits with its seal; a rollback leaves neither."""
    sealer, chain = Sealer(sqlite, clock), AuditChain(sqlite)
    keep(sqlite, make_record(event_id=UUID(int=1)))
    assert sealer.run() == 1
    with sqlite.write() as tx:
        tx.audit.append_all([make_record(event_id=UUID(int=number)) for number in (2, 3)])
    _roll_back(sqlite, make_record(event_id=UUID(int=4)))
    keep(sqlite, make_record(event_id=UUID(int=5), repository="Octo/Ünï", details={"a": "\x00ü\u2028"}))

    assert told(chain.verify()) == (4, 4, None, None, 0, 0)
    assert [it.event_id for it in seals(sqlite)] == [str(UUID(int=number)) for number in (1, 2, 3, 5)]
    assert sealer.run() == 0


def test_sqlite_leaves_what_follows_an_unsealed_record_to_the_sealer(sqlite, make_record, clock):
    """After an unsealed record, SQLite leaves later ones to the sealer: seals stay in the order of the records."""
    sealer, chain = Sealer(sqlite, clock), AuditChain(sqlite)
    keep(sqlite, make_record())
    sealer.run()
    with sqlite.write() as tx:
        AuditTable(tx.audit._connection).append(make_record())
    keep(sqlite, make_record())
    assert told(chain.verify()) == (1, 1, None, None, 2, 0)

    assert sealer.run() == 2
    keep(sqlite, make_record())

    assert told(chain.verify()) == (4, 4, None, None, 0, 0)


def test_nothing_to_seal(database, seal, verify):
    """An empty audit log is valid, and sealing it writes nothing."""
    assert seal() == 0
    with database.read() as tx:
        assert (tx.seals.head(), tx.seals.anchor(), tx.seals.has_work()) == (None, None, False)
    assert told(verify()) == (0, 0, None, None, 0, 0)


def test_many_records(database, make_record, seal, verify):
    """More than one batch is sealed in one run."""
    with database.write() as tx:
        for number in range(600):
            tx.audit.append(make_record(event_id=UUID(int=number + 1)))

    assert seal() == 600
    assert verify()["checked"] == 600


def test_replicas_that_seal_at_once_make_one_chain(database, other_database, make_record, clock, verify):
    """When several replicas seal at the same time, each record gets exactly one seal."""
    with database.write() as tx:
        for number in range(300):
            tx.audit.append(make_record(event_id=UUID(int=number + 1)))

    sealed = at_once(*[Sealer(it, clock).run for it in (database, other_database) * 3])

    assert sum(sealed) <= 300
    Sealer(database, clock).run()
    assert [it.number for it in seals(database)] == list(range(1, 301))
    assert verify()["reason"] is None


def test_a_sealer_that_dies_leaves_the_chain_as_it_was(database, write, seal, verify):
    """A sealer that dies before its commit has sealed nothing, and the next one continues."""
    write(1)
    seal()
    write(2, 3)

    with pytest.raises(KeyboardInterrupt):
        _seal_and_die(database)

    assert (verify()["checked"], verify()["unsealed"]) == (1, 2)
    assert seal() == 2
    assert verify()["checked"] == 3


def _seal_and_die(database):
    def dying():
        raise KeyboardInterrupt

    Sealer(database, dying).run()


@pytest.mark.postgres
def test_a_record_that_commits_late_is_sealed_when_it_appears(migrated_postgres_url, make_record, clock):
    """A record that commits after one with a higher number gets the next seal; no error is reported meanwhile."""
    with Database(migrated_postgres_url) as database, Database(migrated_postgres_url) as slow:
        sealer, chain = Sealer(database, clock), AuditChain(database)
        with slow.write() as late:
            late.audit.append(make_record(event_id=UUID(int=1)))
            keep(database, make_record(event_id=UUID(int=2)))
            assert sealer.run() == 1
            assert chain.verify()["reason"] is None
        assert (chain.verify()["reason"], chain.verify()["unsealed"]) == (None, 1)
        assert sealer.run() == 1

        assert [it.event_id for it in seals(database)] == [str(UUID(int=2)), str(UUID(int=1))]
        assert told(chain.verify()) == (2, 2, None, None, 0, 0)
        assert chain.verify()["head"]["hash"] == seals(database)[-1].hash


@pytest.mark.postgres
def test_a_record_that_commits_minutes_late_is_no_fault(migrated_postgres_url, make_record, now):
    """A number taken by an open transaction stays open for ten minutes of the sealer's clock, while others are sealed."""
    with Database(migrated_postgres_url) as database, Database(migrated_postgres_url) as slow:
        chain = AuditChain(database)
        with slow.write() as late:
            late.audit.append(make_record(event_id=UUID(int=1)))
            for number, minutes in ((2, 0), (3, 5), (4, 9)):
                keep(database, make_record(event_id=UUID(int=number)))
                assert Sealer(database, lambda at=minutes: now + timedelta(minutes=at)).run() == 1
        assert (chain.verify()["reason"], chain.verify()["unsealed"]) == (None, 1)
        assert Sealer(database, lambda: now + timedelta(minutes=9)).run() == 1
        assert told(chain.verify()) == (4, 4, None, None, 0, 0)


@pytest.mark.postgres
def test_a_number_that_was_rolled_back_is_no_fault(migrated_postgres_url, make_record, clock, now):
    """PostgreSQL does not reuse a number that was rolled back: it stays open for a while, then is given up."""
    with Database(migrated_postgres_url) as database:
        sealer, chain = Sealer(database, clock), AuditChain(database)
        _roll_back(database, make_record())
        keep(database, make_record())
        assert chain.verify()["reason"] is None
        assert sealer.run() == 1
        assert chain.verify()["reason"] is None
        assert _gaps(database) > 0

        keep(database, make_record())
        Sealer(database, lambda: now + timedelta(minutes=11)).run()
        assert _gaps(database) == 0
        assert chain.verify()["checked"] == 2


def _roll_back(database, record):
    def fail():
        with database.write() as tx:
            tx.audit.append(record)
            raise LookupError

    with pytest.raises(LookupError):
        fail()


def _gaps(database):
    with database.read() as tx:
        return tx.settings._connection.execute(text("SELECT count(*) FROM audit_gaps")).scalar_one()


TAMPERINGS = [
    ("UPDATE audit_log SET actor = 'mallory' WHERE event_id = :two", 2, "seal 2 or its record was changed"),
    ("UPDATE audit_log SET details = '{ }' WHERE event_id = :two", 2, "seal 2 or its record was changed"),
    ("UPDATE audit_log SET details = 'x' WHERE event_id = :two", 2, "seal 2 or its record was changed"),
    ("UPDATE audit_log SET action = 'x' WHERE event_id = :two", 2, "seal 2 or its record was changed"),
    (
        "UPDATE audit_log SET timestamp = 9000000000000000000 WHERE event_id = :two",
        2,
        "seal 2 or its record was changed",
    ),
    (
        "UPDATE audit_log SET repository_key = 'x' WHERE event_id = :two",
        2,
        "seal 2 or its record was changed",
    ),
    ("UPDATE audit_log SET request_id = 'x' WHERE event_id = :two", 2, "seal 2 or its record was changed"),
    ("DELETE FROM audit_log WHERE event_id = :two", 2, "the record of seal 2 was removed"),
    ("DELETE FROM audit_log WHERE event_id = :three", 3, "the record of seal 3 was removed"),
    ("DELETE FROM audit_seals WHERE seal = 2", 3, "seal 2 was removed"),
    ("UPDATE audit_seals SET hash = 'x' WHERE seal = 2", 2, "seal 2 or its record was changed"),
    ("UPDATE audit_seals SET hash = 'x' WHERE seal = 3", 3, "seal 3 or its record was changed"),
    ("UPDATE audit_seals SET event_id = 'x' WHERE seal = 2", 2, "seal 2 or its record was changed"),
    ("UPDATE audit_seals SET seal = 9 WHERE seal = 3", 3, "seal 3 was removed"),
    ("DELETE FROM audit_seals WHERE seal <= 1", 1, "a record was inserted before the last seal"),
]


@pytest.mark.parametrize(("statement", "event", "fault"), TAMPERINGS)
def test_tampering_is_found(write, seal, sql, verify, statement, event, fault):
    """A changed or removed record or seal is reported with the event where the chain breaks; no input crashes the check."""
    write(1, 2, 3)
    seal()
    names = {"two": str(UUID(int=2)), "three": str(UUID(int=3))}
    sql(statement, **{name: value for name, value in names.items() if f":{name}" in statement})

    report = verify()

    assert (report["reason"], report["firstBroken"]) == (fault, str(UUID(int=event)))


def test_swapped_records_are_found(write, seal, sql, verify):
    """If two records are swapped, the first of them is reported."""
    write(1, actor="a")
    write(2, actor="b")
    seal()
    sql("UPDATE audit_log SET actor = CASE actor WHEN 'a' THEN 'b' ELSE 'a' END")

    assert verify()["firstBroken"] == str(UUID(int=1))


def test_records_that_wait_are_counted(write, seal, verify):
    """Records that are not sealed yet are not an error; the report counts them."""
    write(1)
    seal()
    write(2, 3)

    assert told(verify()) == (1, 1, None, None, 2, 0)


def test_a_record_removed_from_the_tail(database, write, seal, sql, verify):
    """SQLite detects the removal of an unsealed record, even of the last one; PostgreSQL only counts a gap."""
    write(1)
    seal()
    write(2, 3, 4)
    sql("DELETE FROM audit_log WHERE event_id = :it", it=str(UUID(int=3)))
    holes = verify()
    sql("DELETE FROM audit_log WHERE event_id = :it", it=str(UUID(int=4)))
    end = verify()

    with database.read() as tx:
        gapless = tx.seals.is_gapless
    assert (holes["unsealed"], holes["missing"]) == (2, 1)
    assert (end["unsealed"], end["missing"]) == ((1, 2) if gapless else (1, 0))
    assert [it["reason"] for it in (holes, end)] == [
        "a record after the last seal was removed" if gapless else None
    ] * 2
    if gapless:  # still detected after the next record is sealed
        write(5)
        seal()
        assert verify()["reason"] == "a record before seal 3 was removed"


@pytest.mark.parametrize("number", [-(2**62), 0])
def test_a_record_slipped_in_is_found(database, write, seal, sql, verify, number):
    """A record inserted under a number that the chain has passed is found, although every link is intact."""
    write(1, 2)
    seal()
    forced = "" if database._engines.reader.dialect.name == "sqlite" else "OVERRIDING SYSTEM VALUE"
    sql(
        "INSERT INTO audit_log"
        " (sequence, event_id, timestamp, action, outcome, actor, request_id, details)"
        f" {forced} VALUES (:number, 'forged', 0, 'token.issued', 'success', 'mallory', 'r', '{{}}')",
        number=number,
    )

    report = verify()

    assert (report["reason"], report["firstBroken"]) == (
        "a record was inserted before the last seal",
        "forged",
    )
    assert seal() == 0


def test_retention_removes_the_beginning_and_the_chain_stays_sound(database, write, seal, verify, now):
    """Retention removes old sealed records in batches, even the newest; unsealed records stay until they are sealed."""
    for age in (3, 2, 1, 0):
        write(4 - age, timestamp=now - timedelta(days=age))
    assert purge(database, now - timedelta(days=1), 10) == 0
    seal()
    write(5, timestamp=now - timedelta(days=9))

    assert purge(database, now - timedelta(days=1), 1) == 1
    assert verify()["checked"] == 3
    assert purge(database, now - timedelta(days=1), 10) == 1
    assert purge(database, now - timedelta(days=1), 10) == 0
    assert told(verify()) == (2, 4, None, None, 1, 0)
    assert purge(database, now + timedelta(days=1), 10) == 2
    assert told(verify()) == (0, 4, None, None, 1, 0)
    assert seal() == 1
    assert told(verify()) == (1, 5, None, None, 0, 0)
    assert [it.number for it in seals(database)][-1] == 5


def test_after_still_works_when_all_is_gone(database, write, seal, now):
    """Numbers are never reused, so `after` finds new records even when everything before was purged."""
    write(1, 2)
    seal()
    assert purge(database, now + timedelta(days=1), 10) == 2
    write(10, 11)

    with database.read() as tx:
        found = tx.audit.page(AuditFilter(after=UUID(int=11)), limit=10)
    assert [record.event_id.int for record in found.data] == [10]


def test_the_chain_moves_on_while_it_is_read(database, write, seal, now):
    """A reader whose position was removed meanwhile continues at the new beginning."""
    write(1, 2, 3, 4)
    seal()
    batches = AuditChain(database)._batches()
    with database.write() as tx:
        tx.seals.purge(now + timedelta(days=1), limit=2)

    previous, batch, _ = next(batches)

    assert previous.number == 2
    assert [it.seal.number for it in batch] == [3, 4]
    assert GENESIS not in [it.seal for it in batch]


def test_retention_between_two_statements_of_a_check(
    database, other_database, write, seal, verify, now, monkeypatch
):
    """Retention that removes the beginning of the chain between two statements of a check causes no error."""
    write(1, 2, 3, 4)
    seal()
    original, purged = AuditSealTable.after, []

    def after(table, number, *, limit):
        if not purged:
            purged.append(purge(other_database, now + timedelta(days=1), 2))
        return original(table, number, limit=limit)

    monkeypatch.setattr(AuditSealTable, "after", after)

    assert verify()["reason"] is None
    assert purged == [2]
