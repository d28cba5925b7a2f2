"""Checks and exports of the audit chain, on both engines."""

from datetime import timedelta
from uuid import UUID

import pytest

from kit.audit_chain import purge, seals, told
from sentryagent_idp.store.audit_seals import AuditSealTable
from sentryagent_idp.use_cases import sealing
from sentryagent_idp.use_cases.sealing import AuditChain, ChainWatch, Sealer


@pytest.fixture
def watch(database):
    """The background check of the chain; its reports are in the list `reports`."""

    class Watch:
        def __init__(self):
            self.reports = []
            self.chain = AuditChain(database)
            self.run = ChainWatch(self.chain, self.reports.append, lambda _: None).run

        @property
        def seals(self):
            checkpoint = self.chain.checkpoint()
            return checkpoint.up_to.seal.number, checkpoint.round.seal.number

    return Watch()


@pytest.fixture
def _small_parts(monkeypatch):
    """Check batches of two records, one batch per run."""
    monkeypatch.setattr(sealing, "_WATCH_BATCH", 2)
    monkeypatch.setattr(sealing, "_BATCHES_OF_A_RUN", 1)


def test_a_check_for_an_answer_follows_the_checkpoint(write, seal, sql, verify, watch):
    """A check on request skips what the background check has verified and reads only the records since then."""
    write(1, 2, 3)
    seal()
    watch.run()
    assert watch.seals == (3, 0)
    write(4, 5)
    seal()

    assert told(verify()) == (5, 5, None, None, 0, 0)
    sql("UPDATE audit_log SET actor = 'mallory' WHERE event_id = :it", it=str(UUID(int=5)))
    assert told(verify()) == (4, 4, "seal 5 or its record was changed", str(UUID(int=5)), 0, 0)
    assert verify()["checkedUpTo"] == 4


@pytest.mark.usefixtures("_small_parts")
def test_an_old_record_that_was_changed_is_found_in_the_round(write, seal, sql, verify, watch):
    """A change before the checkpoint is found when the check comes round, and reported until it is repaired."""
    write(*range(1, 8))
    seal()
    while watch.seals[0] < 7:
        watch.run()
    sql("UPDATE audit_log SET actor = 'mallory' WHERE event_id = :it", it=str(UUID(int=3)))
    for _ in range(9):
        watch.run()

    fault = ("seal 3 or its record was changed", str(UUID(int=3)))
    assert watch.seals == (7, 2)
    assert [(it["reason"], it["firstBroken"]) for it in (verify(), watch.reports[-1])] == [fault] * 2
    sql("UPDATE audit_log SET actor = 'admin-cli' WHERE event_id = :it", it=str(UUID(int=3)))
    watch.run()
    assert told(verify()) == told(watch.reports[-1]) == (7, 7, None, None, 0, 0)


@pytest.mark.usefixtures("_small_parts")
def test_the_background_begins_again_at_the_beginning(write, seal, watch):
    """The background check first reaches the newest seal, then checks the whole chain again and again."""
    write(*range(1, 6))
    seal()

    places = []
    for _ in range(6):
        watch.run()
        places.append(watch.seals)

    assert places == [(4, 2), (5, 4), (5, 0), (5, 4), (5, 0), (5, 4)]
    assert {it["valid"] for it in watch.reports} == {True}


def test_a_cut_end_is_found_by_the_checkpoint(write, seal, sql, verify, watch):
    """Cutting off the end leaves a valid, shorter chain, but the checkpoint shows that the chain was longer."""
    write(1, 2, 3, 4)
    seal()
    watch.run()
    sql("DELETE FROM audit_log WHERE event_id = :it", it=str(UUID(int=4)))
    sql("DELETE FROM audit_seals WHERE seal > 3")

    fault = "the end of the chain was removed: it had seal 4"
    assert (verify()["reason"], verify()["head"]["seal"], verify()["checkedUpTo"]) == (fault, 3, 3)
    watch.run()
    assert watch.reports[-1]["reason"] == fault


def test_a_chain_that_was_written_again_is_found_by_the_checkpoint(database, write, seal, sql, verify, watch):
    """A changed record is found by an earlier checkpoint, even if every later hash was recomputed."""
    write(1, 2, 3)
    seal()
    watch.run()
    sql("UPDATE audit_log SET actor = 'mallory' WHERE event_id = :it", it=str(UUID(int=2)))
    sql("DELETE FROM audit_seals WHERE seal > 1")
    seal()

    assert AuditChain(database).verify_all()["valid"] is True
    assert verify()["reason"] == "the end of the chain was removed: it had seal 3"
    write(4)
    seal()
    assert verify()["reason"] == "seal 4 or its record was changed"


def test_a_checkpoint_survives_retention(database, write, seal, verify, watch, now):
    """Records that were checked and then removed by retention are not missed."""
    write(1, 2, 3)
    seal()
    watch.run()
    purge(database, now + timedelta(days=1), 3)
    write(4)
    seal()

    assert told(verify()) == (1, 4, None, None, 0, 0)
    watch.run()
    assert told(watch.reports[-1]) == (1, 4, None, None, 0, 0)


def test_an_unreadable_checkpoint_is_none(database, write, seal, verify, watch):
    """An unreadable checkpoint is ignored, and the check starts at the beginning."""
    write(1)
    seal()
    with database.write() as tx:
        tx.settings.put("audit_checkpoint", {"up_to": 1})

    assert told(verify()) == (1, 1, None, None, 0, 0)
    watch.run()
    assert watch.seals == (1, 0)


def test_an_answer_comes_in_time(database, write, seal, monkeypatch):
    """A check on request stops after a few seconds and reports how far it came."""
    monkeypatch.setattr(sealing, "_READ_BATCH", 2)
    write(*range(1, 8))
    seal()
    seconds = iter(range(0, 100, 3))

    report = AuditChain(database, lambda: next(seconds)).verify()

    assert (report["valid"], report["checked"], report["checkedUpTo"], report["head"]["seal"]) == (
        True,
        4,
        4,
        7,
    )


def test_the_whole_chain_from_a_seal(database, write, seal, sql):
    """A check can start at a seal whose hash was kept elsewhere; a different hash or a missing seal is an error."""
    write(1, 2, 3)
    seal()
    kept = seals(database)[1]
    check = AuditChain(database).verify_all

    assert told(check(2, kept.hash)) == (1, 3, None, None, 0, 0)
    assert told(check(0, "0" * 64)) == (3, 3, None, None, 0, 0)
    assert check(2, "f" * 64)["reason"] == "seal 2 has a different hash"
    assert check(4, kept.hash)["reason"] == "there is no seal 4"
    sql("UPDATE audit_log SET actor = 'mallory' WHERE event_id = :it", it=str(UUID(int=1)))
    assert check(2, kept.hash)["valid"] is True
    assert check()["reason"] == "seal 1 or its record was changed"


def test_a_seal_that_retention_removed_is_named(database, write, seal, now):
    """A check cannot start at a seal that retention removed: the report names it."""
    write(1, 2, 3)
    seal()
    first, last = seals(database)[0], seals(database)[2]
    purge(database, now + timedelta(days=1), 2)
    check = AuditChain(database).verify_all

    assert check(1, first.hash)["reason"] == "seal 1 is gone with its record; the chain begins after seal 2"
    assert check(3, last.hash)["valid"] is True


def test_export_does_not_read_what_is_too_old(database, write, seal, now):
    """A daily export reads one day, not the whole history."""
    write(*range(1, 50), timestamp=now - timedelta(days=9))
    write(50, timestamp=now)
    seal()
    start = now - timedelta(hours=1)

    with database.read() as tx:
        assert tx.seals.before(start).number == 49
        assert tx.seals.before(now - timedelta(days=10)) is None
    assert [line["seal"] for line in AuditChain(database).sealed(start)] == [50]


def test_export_is_the_span_of_time(database, write, seal, now):
    """`start` is inclusive and `end` exclusive; each line has its own hash and the previous one."""
    for second in range(4):
        write(second + 1, timestamp=now + timedelta(seconds=second))
    seal()

    lines = list(AuditChain(database).sealed(now + timedelta(seconds=1), now + timedelta(seconds=3)))

    assert [line["seal"] for line in lines] == [2, 3]
    assert lines[0]["hash"] == lines[1]["previous"]
    assert len(list(AuditChain(database).sealed(None, None))) == 4


def test_others_may_write_between_two_batches(database, clock, write, monkeypatch):
    """The sealer pauses after each full batch, so that another process can take SQLite's lock."""
    write(1, 2, 3)
    events, append = [], AuditSealTable.append

    def recorded(*args):
        events.append("sealed")
        append(*args)

    def rest(seconds):
        assert seconds > 0
        events.append("rested")

    monkeypatch.setattr(AuditSealTable, "append", recorded)
    monkeypatch.setattr(sealing, "_SEAL_BATCH", 2)

    assert Sealer(database, clock, rest).run() == 3
    assert events == ["sealed", "rested", "sealed"]
