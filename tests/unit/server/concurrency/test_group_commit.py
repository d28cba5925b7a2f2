"""Group commit: exchanges that commit together, without affecting each other."""

import asyncio
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest

from kit import records
from kit.threads import outcome_of
from sentryagent_idp.concurrency import group_commit
from sentryagent_idp.concurrency.group_commit import CommitFailed, GroupCommit, PendingExchange
from sentryagent_idp.concurrency.policy_snapshot import PolicySnapshot
from sentryagent_idp.concurrency.request_greenlet import RequestGreenlet
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.errors import DatabaseUnavailable, ValidationFailed
from sentryagent_idp.ports import WriterBusy

ISSUER = "https://token.actions.githubusercontent.com"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Database:
    """A store of lists; another writer blocks it `busy` times."""

    def __init__(self, *, is_local):
        self.is_local = is_local
        self.used, self.records, self.uses, self.sizes = set(), [], [], []
        self.busy = 0
        self.timed = []
        self.frames = []
        self.failure = None

    @contextmanager
    def write(self):
        yield SimpleNamespace(
            signing_keys=SimpleNamespace(version=lambda: 1),
            policies=SimpleNamespace(
                fingerprints=lambda keys: {(ISSUER, key): f"{key} now" for key in keys},
                mark_used=lambda ids, _now: self.uses.append(sorted(ids)),
            ),
            used_tokens=SimpleNamespace(claim_all=self._claim_all),
            audit=SimpleNamespace(append_all=self._append_all),
        )

    @contextmanager
    def write_at_once(self):
        if self.busy:
            self.busy -= 1
            raise WriterBusy
        with self.write() as tx:
            yield tx

    def _claim_all(self, tokens):
        self.sizes.append(len(tokens))
        return [token.jti not in self.used and not self.used.add(token.jti) for token in tokens]

    def _append_all(self, records):
        if self.failure:
            raise self.failure
        self.records += records


@pytest.fixture(params=[True, False], ids=["on the loop", "in a thread"])
def database(request):
    """An empty database, local or not."""
    return Database(is_local=request.param)


@pytest.fixture
def commit(database):
    """Commit exchanges that a loop handles at the same time; return each outcome."""
    commits = GroupCommit(database, lambda: NOW, lambda *seen: database.timed.append(seen))

    def commit(*exchanges):
        outcomes = {}

        def handle(number, exchange, all_ended):
            outcome = outcomes[number] = outcome_of(commits.commit, exchange)
            # Count now: the next request may raise the same object.
            database.frames.append(sum(1 for _ in traceback.walk_tb(getattr(outcome, "__traceback__", None))))
            if len(outcomes) == len(exchanges):
                all_ended.set()

        async def handle_all():
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
            all_ended = asyncio.Event()
            for number, exchange in enumerate(exchanges):
                RequestGreenlet(handle).switch(number, exchange, all_ended)
            await asyncio.wait_for(all_ended.wait(), 10)

        asyncio.run(handle_all())
        return [outcomes[number] for number in range(len(exchanges))]

    return commit


def _exchange(jti, *, repository="octo/repo", fingerprint=None, keys_version=1, policy=0, last_used_at=NOW):
    return PendingExchange(
        snapshot=PolicySnapshot(ISSUER, repository, None, fingerprint or f"{repository} now", [], True),
        keys_version=keys_version,
        policy=records.policy(NOW, id=UUID(int=policy), repository=repository, last_used_at=last_used_at),
        used=UsedToken(ISSUER, jti, NOW),
        record=f"record of {jti}",
    )


def test_exchanges_of_one_moment_are_kept_together(database, commit):
    """Concurrent exchanges commit in one transaction, each with its audit record."""
    outcomes = commit(*(_exchange(f"jti-{number}") for number in range(9)))

    assert outcomes == [True] * 9
    assert database.sizes == [9]
    assert database.records == [f"record of jti-{number}" for number in range(9)]


def test_a_group_is_timed_with_its_wait(database, commit):
    """A local database's group commit is timed once, with its retries; other databases time their transactions."""
    database.busy = 20
    commit(*(_exchange(f"jti-{number}") for number in range(3)))

    kinds = [kind for kind, _ in database.timed]
    assert kinds == (["write"] if database.is_local else [])
    assert all(seconds >= 20 * group_commit._RETRY_SECONDS for _, seconds in database.timed)


def test_a_group_is_bounded(database, commit, monkeypatch):
    """Exchanges beyond the limit go into the next groups."""
    monkeypatch.setattr(group_commit, "_LARGEST", 4)

    assert commit(*(_exchange(f"jti-{number}") for number in range(10))) == [True] * 10
    assert database.sizes == [4, 4, 2]


def test_outside_of_a_loop_an_exchange_is_kept_alone(database):
    """Outside a loop an exchange commits by itself."""
    assert GroupCommit(database, lambda: NOW).commit(_exchange("a"))
    assert database.records == ["record of a"]


def test_only_what_is_still_true_is_kept(database, commit):
    """Outdated exchanges and used tokens are not committed, and do not affect the others."""
    assert commit(_exchange("first")) == [True]
    outcomes = commit(
        _exchange("first"),
        _exchange("other policies", fingerprint="before"),
        _exchange("other keys", keys_version=2),
        _exchange("good", repository="octo/other"),
        _exchange("twin"),
        _exchange("twin"),
    )

    assert outcomes == [False, False, False, True, True, False]
    assert sorted(database.records) == ["record of first", "record of good", "record of twin"]
    assert database.used == {"first", "good", "twin"}


def test_nothing_is_asked_of_the_database_for_nothing(database, commit):
    """If all exchanges are outdated, no token is claimed and no record is written."""
    assert commit(_exchange("a", fingerprint="before")) == [False]
    assert (database.sizes, database.records) == ([], [])


def test_use_of_a_policy_is_recorded_once_for_a_group(database, commit):
    """Each used policy is recorded once per group, but not for an outdated exchange."""
    commit(
        _exchange("a", policy=1, last_used_at=None),
        _exchange("b", policy=2, last_used_at=None),
        _exchange("c", policy=2, last_used_at=None),
        _exchange("d", policy=3, last_used_at=None, fingerprint="before"),
    )

    assert database.uses == [[UUID(int=1), UUID(int=2)]]


@pytest.mark.parametrize(("age", "is_recorded"), [(None, True), (60, True), (59, False)])
def test_use_is_recorded_once_a_minute(database, commit, age, is_recorded):
    """Uses are compared with the stored time and with those that this process recorded; ages are in seconds."""
    last_used_at = None if age is None else NOW - timedelta(seconds=age)
    commit(_exchange("a", last_used_at=last_used_at))
    commit(_exchange("b", last_used_at=last_used_at))

    assert database.uses == ([[UUID(int=0)]] if is_recorded else [])


def test_recorded_uses_are_bounded(database, commit, monkeypatch):
    """When there are too many recorded uses, all are dropped; the SQL still limits writes to one a minute."""
    monkeypatch.setattr(group_commit, "_MOST_USES", 2)
    for number in range(3):
        commit(_exchange(f"a{number}", policy=number, last_used_at=None))
    commit(_exchange("b", policy=0, last_used_at=None))

    assert database.uses == [[UUID(int=number)] for number in (0, 1, 2, 0)]


def test_an_outage_meets_all_that_wait(database, commit, monkeypatch):
    """An outage fails all waiting exchanges, even those of later groups, so it is waited for only once."""
    monkeypatch.setattr(group_commit, "_LARGEST", 2)
    database.failure = DatabaseUnavailable("The database is not responding; try again in 2 s.", retry_after=2)

    assert commit(_exchange("a"), _exchange("b"), _exchange("c")) == [database.failure] * 3
    assert database.sizes == [2]


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away", retry_after=2), RuntimeError("a defect")])
def test_the_error_of_a_group_does_not_grow_with_its_requests(database, commit, failure):
    """Each request gets its own short traceback: a shared one would grow with each request and stall the loop."""
    database.failure = failure
    commit(*(_exchange(f"jti-{number}") for number in range(30)))

    assert len(database.frames) == 30
    assert len(set(database.frames)) == 1


def test_what_cannot_be_stored_of_one_does_not_fail_the_others(database, commit):
    """If one exchange cannot be stored, the transaction is rolled back and each exchange tries alone."""
    database.failure = ValidationFailed("request", "a value cannot be stored")

    assert commit(_exchange("a"), _exchange("b")) == [False, False]


def test_a_defect_reaches_those_who_wait(database, commit):
    """An unexpected error reaches every waiting request, and the next group is committed."""
    database.failure = RuntimeError("a defect")
    outcomes = commit(_exchange("a"), _exchange("b"))
    assert [(type(error), error.__cause__) for error in outcomes] == [(CommitFailed, database.failure)] * 2

    database.failure = None
    assert commit(_exchange("c")) == [True]


def test_another_writer_is_waited_for_without_stopping_the_loop(commit, database):
    """While another writer is busy, the group retries and the loop keeps running."""
    database.is_local, database.busy = True, 3

    assert commit(_exchange("a"), _exchange("b")) == [True, True]
    assert (database.busy, database.sizes) == (0, [2])


def test_a_writer_that_never_ends_is_an_outage(commit, database, monkeypatch):
    """A writer that does not finish in time is an outage, and the next group is committed."""
    monkeypatch.setattr(group_commit, "_PATIENCE_SECONDS", 0.01)
    database.is_local, database.busy = True, 1_000_000

    (outcome,) = commit(_exchange("a"))

    assert isinstance(outcome, DatabaseUnavailable)
    database.busy = 0
    assert commit(_exchange("b")) == [True]
