"""Group commit: concurrent exchanges share a transaction, because a commit costs the same for one as for ten.

An exchange is decided beforehand, on a policy snapshot. The transaction that stores it first checks that the snapshot
is still current; if it is not, nothing of that exchange is stored.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from uuid import UUID

import msgspec

from sentryagent_idp.concurrency.policy_snapshot import PolicySnapshot
from sentryagent_idp.concurrency.request_greenlet import RequestGreenlet, current_request
from sentryagent_idp.domain.audit import AuditRecord
from sentryagent_idp.domain.trust_policy import TrustPolicy, is_use_due
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.errors import DatabaseUnavailable, ServiceError
from sentryagent_idp.ports import Clock, Store, Transaction, WriterBusy

_LARGEST = 64
"""The most exchanges in one transaction: each number of rows is a separate statement, which the driver caches."""
_RETRY_SECONDS = 0.0003
_PATIENCE_SECONDS = 4.0
"""How long a group waits for other writers; clients get a response well within 10 s of an outage."""
_BUSY = "Other writers kept the database busy; try again in 2 s."
_MOST_USES = 10_000


class PendingExchange(msgspec.Struct, frozen=True, eq=False):
    """A decided exchange: the state that it depends on, and the rows to commit before its access token is sent."""

    snapshot: PolicySnapshot
    keys_version: int
    policy: TrustPolicy
    used: UsedToken
    record: AuditRecord


_Waiting = tuple[PendingExchange, RequestGreenlet]
_Uses = dict[UUID, datetime]
"""The last recorded time of use of each policy."""
_Outcome = Collection[PendingExchange] | BaseException
"""The exchanges that were stored, or the error that stopped the whole group."""


class CommitFailed(Exception):
    """A defect stopped a group's transaction; `__cause__` is the error."""


class GroupCommit:
    """Commits exchanges in groups, one transaction at a time; each process has one instance.

    On SQLite the statements run on the loop, which never waits for another writer, and only `COMMIT`, which waits for
    the disk, runs in a thread. On PostgreSQL the whole transaction runs in the thread. On a local database, `observe`
    is called with `write` and the seconds that each group took.
    """

    def __init__(
        self, store: Store, clock: Clock, observe: Callable[[str, float], object] = lambda *_: None
    ) -> None:
        self._store = store
        self._clock = clock
        self._observe = observe
        self._waiting: list[_Waiting] = []
        self._is_committing = False
        self._began = 0.0
        self._used_at = _Uses()
        # A dedicated thread: all other threads may be waiting for the lock that a commit releases.
        self._thread = ThreadPoolExecutor(1, "group-commit")

    def commit(self, exchange: PendingExchange) -> bool:
        """Store the exchange, and return when it is committed.

        Returns `False` if nothing was stored, for example because the ID token was already used or the snapshot is no
        longer current. Raises `DatabaseUnavailable`, and `CommitFailed` for a defect.
        """
        request = current_request()
        outcome = self._alone(exchange) if request is None else self._queue(exchange, request)
        # The requests of a group share the error object, to whose traceback each raise would add its frames.
        if isinstance(outcome, ServiceError):
            raise outcome.with_traceback(None)
        if isinstance(outcome, BaseException):
            raise CommitFailed from outcome
        return exchange in outcome

    def _alone(self, exchange: PendingExchange) -> _Outcome:
        try:
            return self._commit_group([exchange])
        except ServiceError as error:
            return _outcome_of(error)

    def _queue(self, exchange: PendingExchange, request: RequestGreenlet) -> _Outcome:
        self._waiting.append((exchange, request))
        if not self._is_committing:
            self._begin_next()
        outcome: _Outcome = request.pause()
        return outcome

    def _begin_next(self) -> None:
        self._is_committing = bool(self._waiting)
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._began = loop.time()
            # Requests that have arrived in full by now are decided first, and join the group.
            loop.call_soon(self._write_group)

    def _write_group(self) -> None:
        """Write the next group, and have the thread commit it."""
        group = self._waiting[:_LARGEST]
        exchanges = [exchange for exchange, _ in group]
        loop = asyncio.get_running_loop()
        try:
            rest = (
                self._write_at_once(exchanges)
                if self._store.is_local
                else partial(self._commit_group, exchanges)
            )
        except WriterBusy:
            if loop.time() < self._began + _PATIENCE_SECONDS:
                loop.call_later(_RETRY_SECONDS, self._write_group)
            else:
                self._end(group, DatabaseUnavailable(_BUSY, retry_after=2))
        except BaseException as error:  # noqa: BLE001 - it is raised in each request of the group
            self._end(group, _outcome_of(error))
        else:
            self._thread.submit(self._finish, loop, group, rest)

    def _write_at_once(self, exchanges: Sequence[PendingExchange]) -> Callable[[], _Outcome]:
        """Write the exchanges without waiting for a lock, and return what commits them; raises `WriterBusy`."""
        with ExitStack() as stack:
            stored = self._insert(stack.enter_context(self._store.write_at_once()), exchanges)
            commit = stack.pop_all().close

        def committed() -> _Outcome:
            commit()
            return stored

        return committed

    def _commit_group(self, exchanges: Sequence[PendingExchange]) -> _Outcome:
        with self._store.write() as tx:
            return self._insert(tx, exchanges)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, group: Sequence[_Waiting], rest: Callable[[], _Outcome]
    ) -> None:
        try:
            outcome = rest()
        except BaseException as error:  # noqa: BLE001 - as above
            outcome = _outcome_of(error)
        loop.call_soon_threadsafe(self._end, group, outcome)

    def _end(self, group: Sequence[_Waiting], outcome: _Outcome) -> None:
        """Resume the requests of a group, and begin the next group."""
        if self._store.is_local:
            # The store cannot measure this: a group that waits for another writer tries several times.
            self._observe("write", asyncio.get_running_loop().time() - self._began)
        if isinstance(outcome, DatabaseUnavailable):
            # Requests that arrived meanwhile waited for the same database, and must not wait as long again.
            group = self._waiting[:]
        del self._waiting[: len(group)]
        self._begin_next()
        for _, request in group:
            request.switch(outcome)

    def _insert(self, tx: Transaction, exchanges: Sequence[PendingExchange]) -> Sequence[PendingExchange]:
        stored = _claim(tx, _current(tx, exchanges))
        if stored:
            tx.audit.append_all([exchange.record for exchange in stored])
            self._record_use(tx, stored)
        return stored

    def _record_use(self, tx: Transaction, stored: Sequence[PendingExchange]) -> None:
        """Update `last_used_at` of the policies for which that is due."""
        now = self._clock()
        policies = {exchange.policy.id: exchange.policy for exchange in stored}
        due = [
            policy.id
            for policy in policies.values()
            if is_use_due(self._used_at.get(policy.id, policy.last_used_at), now)
        ]
        if due:
            tx.policies.mark_used(due, now)
            if len(self._used_at) >= _MOST_USES:
                self._used_at.clear()
            self._used_at.update(dict.fromkeys(due, now))


def _outcome_of(error: BaseException) -> _Outcome:
    """The outcome of a group that failed; data of one exchange that the database rejects must not fail the others.

    Nothing is stored in that case, and each exchange may try again alone.
    """
    return () if isinstance(error, ServiceError) and not isinstance(error, DatabaseUnavailable) else error


def _current(tx: Transaction, exchanges: Sequence[PendingExchange]) -> Sequence[PendingExchange]:
    """The exchanges whose snapshot and signing keys are still current."""
    keys_version = tx.signing_keys.version()
    fingerprints = tx.policies.fingerprints({exchange.snapshot.repository_key for exchange in exchanges})
    return [
        exchange
        for exchange in exchanges
        if exchange.keys_version == keys_version and exchange.snapshot.is_current(fingerprints)
    ]


def _claim(tx: Transaction, exchanges: Sequence[PendingExchange]) -> Sequence[PendingExchange]:
    """Mark the ID tokens as used; return the exchanges whose token was unused, one per token (B6)."""
    if not exchanges:
        return []
    are_unused = tx.used_tokens.claim_all([exchange.used for exchange in exchanges])
    return [exchange for exchange, is_unused in zip(exchanges, are_unused, strict=True) if is_unused]
