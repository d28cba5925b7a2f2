"""Exchanges that are kept together, and what one of them cannot do to the others."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event
from types import SimpleNamespace
from uuid import UUID

import pytest

from sentryagent_idp.concurrency import run_lock
from sentryagent_idp.concurrency.run_lock import Baton
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.errors import DatabaseUnavailable, ValidationFailed
from sentryagent_idp.use_cases.decision import Standing
from sentryagent_idp.use_cases.ledger import Ledger, Settlement

ISSUER = "https://token.actions.githubusercontent.com"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Database:
    """A store of lists; its first transaction waits until it is let in, so that others queue up behind it."""

    def __init__(self):
        self.used, self.records, self.notes, self.sizes = set(), [], [], []
        self.is_open = Event()
        self.entered = Event()
        self.failure = None

    @contextmanager
    def write(self):
        self.entered.set()
        assert self.is_open.wait(10)
        yield SimpleNamespace(
            signing_keys=SimpleNamespace(version=lambda: 1),
            policies=SimpleNamespace(
                fingerprints=lambda keys: {(ISSUER, key): f"{key} now" for key in keys},
                mark_used=lambda ids, _now: self.notes.extend(sorted(ids)),
            ),
            used_tokens=SimpleNamespace(claim_all=self._claim_all),
            audit=SimpleNamespace(append_all=self._append_all),
        )

    def _claim_all(self, tokens):
        self.sizes.append(len(tokens))
        return [token.jti not in self.used and not self.used.add(token.jti) for token in tokens]

    def _append_all(self, records):
        if self.failure:
            raise self.failure
        self.records += records


def until(condition):
    """Wait for other threads to get there."""
    for _ in range(10_000):
        if condition():
            return
        Event().wait(0.001)
    pytest.fail("the other threads did not get there")


@pytest.fixture
def database():
    """An empty database that is still shut."""
    return Database()


@pytest.fixture
def settle(database):
    """Settles all, the first one alone and the others together behind it; what each call ended with."""
    ledger = Ledger(database, lambda: NOW, Baton())

    def ended(settlement):
        try:
            return ledger.settle(settlement)
        except Exception as error:  # noqa: BLE001 - the test looks at what each call ended with
            return error

    def settle(*settlements):
        with ThreadPoolExecutor(len(settlements)) as pool:
            calls = []
            for number, settlement in enumerate(settlements):
                calls.append(pool.submit(ended, settlement))
                assert database.entered.wait(10)
                until(lambda number=number: len(ledger._waiting) == number)
            database.is_open.set()
            return [call.result(10) for call in calls]

    return settle


def _settlement(jti, *, repository="octo/repo", fingerprint=None, keys_version=1, note_use_of=None):
    return Settlement(
        standing=Standing(ISSUER, repository, None, fingerprint or f"{repository} now", [], True),
        keys_version=keys_version,
        used=UsedToken(ISSUER, jti, NOW),
        record=f"record of {jti}",
        note_use_of=note_use_of,
    )


def test_those_that_wait_are_kept_together(database, settle):
    """While one transaction is under way the others queue up, and the next one keeps them all."""
    outcomes = settle(*(_settlement(f"jti-{number}") for number in range(9)))

    assert outcomes == [True] * 9
    assert database.sizes == [1, 8]
    assert sorted(database.records) == [f"record of jti-{number}" for number in range(9)]


def test_those_that_are_still_deciding_join(database, monkeypatch):
    """The first one keeps nothing before all threads that wait for the baton had it."""
    monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS", 60.0)
    shared = Baton()
    ledger = Ledger(database, lambda: NOW, shared)
    database.is_open.set()

    def exchange(number):
        with shared.hold():
            return ledger.settle(_settlement(f"jti-{number}"))

    with ThreadPoolExecutor(5) as pool:
        with shared.hold():
            calls = [pool.submit(exchange, number) for number in range(5)]
            until(lambda: len(shared._line) == 5)
        assert [call.result(10) for call in calls] == [True] * 5
    assert database.sizes == [5]


def test_only_what_still_holds_is_kept(database, settle):
    """Of the outdated ones, and of a token that is used up, nothing is kept; the others do not notice."""
    outcomes = settle(
        _settlement("first"),
        _settlement("first"),
        _settlement("other policies", fingerprint="before"),
        _settlement("other keys", keys_version=2),
        _settlement("good", repository="octo/other"),
        _settlement("twin"),
        _settlement("twin"),
    )

    assert outcomes == [True, False, False, False, True, True, False]
    assert sorted(database.records) == ["record of first", "record of good", "record of twin"]
    assert database.used == {"first", "good", "twin"}


def test_nothing_is_asked_of_the_database_for_nothing(database, settle):
    """Where all are outdated, no token is claimed and no record written."""
    assert settle(_settlement("a", fingerprint="before")) == [False]
    assert (database.sizes, database.records) == ([], [])


def test_use_is_noted_with_what_is_kept(database, settle):
    """The use of a policy is noted once for all exchanges of a transaction, and not for one that is not kept."""
    one, two, three = (UUID(int=number) for number in (1, 2, 3))
    settle(
        _settlement("a", note_use_of=one),
        _settlement("b", note_use_of=two),
        _settlement("c", note_use_of=two),
        _settlement("d"),
        _settlement("e", note_use_of=three, fingerprint="before"),
    )

    assert database.notes == [one, two]


def test_an_outage_meets_all_that_wait(database, settle):
    """Each is told that the database does not answer, also who came meanwhile: one outage is waited for once."""
    database.failure = DatabaseUnavailable("The database does not answer; try again in 2 s.", retry_after=2)

    assert settle(_settlement("a"), _settlement("b"), _settlement("c")) == [database.failure] * 3
    assert database.sizes == [1]


def test_what_cannot_be_stored_of_one_does_not_fail_the_others(database, settle):
    """None of the transaction is kept, so that each may try alone."""
    database.failure = ValidationFailed("request", "a value cannot be stored")

    assert settle(_settlement("a"), _settlement("b")) == [False, False]


def test_a_defect_reaches_those_who_wait(database, settle):
    """Nobody waits for ever for a writer that failed, and the next one is served."""
    database.failure = RuntimeError("a defect")
    assert settle(_settlement("a"), _settlement("b")) == [database.failure] * 2
    assert database.sizes == [1, 1]

    database.failure = None
    assert settle(_settlement("c")) == [True]
