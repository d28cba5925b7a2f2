"""Exchanges that the loop handles at the same moment, kept in one transaction: a commit costs the same for one as for ten.

An exchange is decided beforehand, on a snapshot of the policies. The transaction that keeps it first makes sure that
the database still says the same; if it does not, nothing of that exchange is kept.
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
"""Exchanges in one transaction: each number of rows is a statement of its own, which the driver keeps."""
_RETRY_SECONDS = 0.0003
_PATIENCE_SECONDS = 4.0
"""How long a group waits for other writers, so that an outage is answered well within 10 s."""
_BUSY = "Other writers kept the database busy; try again in 2 s."
_MOST_USES = 10_000


class PendingExchange(msgspec.Struct, frozen=True, eq=False):
    """One exchange: what it rests on, and what must be kept before its token may leave."""

    snapshot: PolicySnapshot
    keys_version: int
    policy: TrustPolicy
    used: UsedToken
    record: AuditRecord


_Waiting = tuple[PendingExchange, RequestGreenlet]
_Uses = dict[UUID, datetime]
"""By policy, the time of its use that was recorded last."""
_Outcome = Collection[PendingExchange] | BaseException
"""Those that were kept, or what stopped all of them."""


class CommitFailed(Exception):
    """A defect stopped the transaction of a group; its cause says which."""


class GroupCommit:
    """Keeps exchanges; one for each process. `observe` gets `write` and the seconds of each group on a local database.

    On SQLite the statements run on the loop, which never waits there for another writer, and only `COMMIT`, which waits
    for the disk, runs in a thread. On PostgreSQL the whole transaction does. One transaction is under way at a time.
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
        # A thread of its own: all others may wait for the very lock that a commit gives back.
        self._thread = ThreadPoolExecutor(1, "group-commit")

    def keep(self, exchange: PendingExchange) -> bool:
        """Keep the exchange, and return when it is committed.

        `False` if nothing was kept: its token is used up, or the database no longer says what it rests on.
        Raises `DatabaseUnavailable`.
        """
        request = current_request()
        outcome = self._alone(exchange) if request is None else self._queue(exchange, request)
        # All requests of a group get the same error, and each that raised it would add its frames to the next one's.
        if isinstance(outcome, ServiceError):
            raise outcome.with_traceback(None)
        if isinstance(outcome, BaseException):
            raise CommitFailed from outcome
        return exchange in outcome

    def _alone(self, exchange: PendingExchange) -> _Outcome:
        try:
            return self._kept([exchange])
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
            # Requests that are whole by now are decided first, and join.
            loop.call_soon(self._commit)

    def _commit(self) -> None:
        """Keep the next group."""
        group = self._waiting[:_LARGEST]
        exchanges = [exchange for exchange, _ in group]
        loop = asyncio.get_running_loop()
        try:
            rest = self._written(exchanges) if self._store.is_local else partial(self._kept, exchanges)
        except WriterBusy:
            if loop.time() < self._began + _PATIENCE_SECONDS:
                loop.call_later(_RETRY_SECONDS, self._commit)
            else:
                self._end(group, DatabaseUnavailable(_BUSY, retry_after=2))
        except BaseException as error:  # noqa: BLE001 - it is raised in each of the requests
            self._end(group, _outcome_of(error))
        else:
            self._thread.submit(self._finish, loop, group, rest)

    def _written(self, exchanges: Sequence[PendingExchange]) -> Callable[[], _Outcome]:
        """Write the exchanges without waiting for anybody; what is returned commits them. Raises `WriterBusy`."""
        with ExitStack() as stack:
            kept = self._keep(stack.enter_context(self._store.write_at_once()), exchanges)
            commit = stack.pop_all().close

        def committed() -> _Outcome:
            commit()
            return kept

        return committed

    def _kept(self, exchanges: Sequence[PendingExchange]) -> _Outcome:
        with self._store.write() as tx:
            return self._keep(tx, exchanges)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, group: Sequence[_Waiting], rest: Callable[[], _Outcome]
    ) -> None:
        try:
            outcome = rest()
        except BaseException as error:  # noqa: BLE001 - as above
            outcome = _outcome_of(error)
        loop.call_soon_threadsafe(self._end, group, outcome)

    def _end(self, group: Sequence[_Waiting], outcome: _Outcome) -> None:
        """Let the requests of a group go on, and begin the next one."""
        if self._store.is_local:
            # The store cannot tell: a group that waits for another writer tries again and again.
            self._observe("write", asyncio.get_running_loop().time() - self._began)
        if isinstance(outcome, DatabaseUnavailable):
            # Requests that came meanwhile waited for the same database, and must not wait as long once more.
            group = self._waiting[:]
        del self._waiting[: len(group)]
        self._begin_next()
        for _, request in group:
            request.switch(outcome)

    def _keep(self, tx: Transaction, exchanges: Sequence[PendingExchange]) -> Sequence[PendingExchange]:
        kept = _claim(tx, _current(tx, exchanges))
        if kept:
            tx.audit.append_all([exchange.record for exchange in kept])
            self._record_use(tx, kept)
        return kept

    def _record_use(self, tx: Transaction, kept: Sequence[PendingExchange]) -> None:
        """Set `last_used_at` of the policies where that is due."""
        now = self._clock()
        policies = {exchange.policy.id: exchange.policy for exchange in kept}
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
    """What an error means for a group: what the database refuses to store of one exchange must not fail the others.

    Then none is kept, and each may try alone.
    """
    return () if isinstance(error, ServiceError) and not isinstance(error, DatabaseUnavailable) else error


def _current(tx: Transaction, exchanges: Sequence[PendingExchange]) -> Sequence[PendingExchange]:
    """Those that rest on what the database says now."""
    keys_version = tx.signing_keys.version()
    fingerprints = tx.policies.fingerprints({exchange.snapshot.repository_key for exchange in exchanges})
    return [
        exchange
        for exchange in exchanges
        if exchange.keys_version == keys_version and exchange.snapshot.is_current(fingerprints)
    ]


def _claim(tx: Transaction, exchanges: Sequence[PendingExchange]) -> Sequence[PendingExchange]:
    """Those whose token was unused; of several at the same moment one (federation-security B6)."""
    if not exchanges:
        return []
    are_unused = tx.used_tokens.claim_all([exchange.used for exchange in exchanges])
    return [exchange for exchange, is_unused in zip(exchanges, are_unused, strict=True) if is_unused]
