"""Exchanges of several threads kept in one transaction: a commit costs nearly the same for one as for ten.

An exchange is decided beforehand, on what this process read last. The transaction that keeps it first makes sure that
the database still says the same; where it does not, nothing of that exchange is kept.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

from sentryagent_idp.concurrency.run_lock import Baton
from sentryagent_idp.domain.audit import AuditRecord
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.errors import DatabaseUnavailable, ServiceError
from sentryagent_idp.ports import Clock, Store, Transaction
from sentryagent_idp.use_cases.decision import Standing


@dataclass(frozen=True, slots=True, eq=False)
class Settlement:
    """One exchange: what it rests on, and what must be kept before its token may leave.

    `note_use_of` is the policy whose use is to be noted, if that is due.
    """

    standing: Standing
    keys_version: int
    used: UsedToken
    record: AuditRecord
    note_use_of: UUID | None


@dataclass(slots=True)
class _Place:
    """A settlement in the queue: whether its thread writes for all, and what became of it when its turn has come."""

    settlement: Settlement
    turn: Lock
    writes: bool
    is_kept: bool = False
    failure: BaseException | None = None

    def outcome(self) -> bool:
        """Whether it was kept; raises what stopped that."""
        if self.failure:
            raise self.failure
        return self.is_kept


class Ledger:
    """Keeps settlements, those that wait at the same moment together; one for each process, for many threads."""

    def __init__(self, store: Store, clock: Clock, baton: Baton) -> None:
        self._store = store
        self._clock = clock
        self._baton = baton
        self._waiting: list[_Place] = []
        self._has_writer = False
        self._lock = Lock()

    def settle(self, settlement: Settlement) -> bool:
        """Keep it, and return when it is committed.

        `False` where nothing was kept: its token is used up, or the database says no longer what it rests on.
        Raises `DatabaseUnavailable`.
        """
        place = self._queue_up(settlement)
        if not place.writes:
            self._baton.wait(place.turn)
        if place.writes:
            self._write_for_all()
        return place.outcome()

    def _queue_up(self, settlement: Settlement) -> _Place:
        with self._lock:
            place = _Place(settlement, self._baton.turn(), writes=not self._has_writer)
            self._has_writer = True
            self._waiting.append(place)
        return place

    def _write_for_all(self) -> None:
        """Let those that are still deciding join, keep all that wait, and tell them."""
        self._baton.step_back()
        places = self._leave_the_queue()
        try:
            kept = self._keep([place.settlement for place in places])
        except BaseException as error:  # noqa: BLE001 - it is raised in each of the threads
            if isinstance(error, DatabaseUnavailable):
                # Who came meanwhile has waited for the same answer, and must not wait as long once more.
                places += self._leave_the_queue()
            for place in places:
                place.failure = error
        else:
            for place in places:
                place.is_kept = place.settlement in kept
        self._go_on(places)

    def _leave_the_queue(self) -> list[_Place]:
        with self._lock:
            places, self._waiting = self._waiting, []
        return places

    def _go_on(self, done: Sequence[_Place]) -> None:
        """Wake the threads whose settlements are done, and the one that writes next."""
        with self._lock:
            following = self._waiting[:1]
            self._has_writer = bool(following)
            for place in following:
                place.writes = True
        for place in (*following, *(place for place in done if not place.writes)):
            self._baton.call(place.turn)

    def _keep(self, settlements: Sequence[Settlement]) -> Collection[Settlement]:
        """Those of the settlements that were kept."""
        try:
            with self._store.write() as tx:
                kept = _claim(tx, _current(tx, settlements))
                if kept:
                    tx.audit.append_all([it.record for it in kept])
                    _note_use(tx, kept, self._clock)
                return kept
        except DatabaseUnavailable:
            raise
        except ServiceError:
            # What the database refuses to store of one must not fail the others: none is kept, each may try alone.
            return ()


def _current(tx: Transaction, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
    """Those that rest on what the database says now."""
    keys_version = tx.signing_keys.version()
    fingerprints = tx.policies.fingerprints({it.standing.repository_key for it in settlements})
    return [
        it for it in settlements if it.keys_version == keys_version and it.standing.is_current(fingerprints)
    ]


def _claim(tx: Transaction, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
    """Those whose token was unused; of several at the same moment one (federation-security B6)."""
    if not settlements:
        return []
    are_unused = tx.used_tokens.claim_all([it.used for it in settlements])
    return [it for it, is_unused in zip(settlements, are_unused, strict=True) if is_unused]


def _note_use(tx: Transaction, settlements: Sequence[Settlement], clock: Clock) -> None:
    used = {it.note_use_of for it in settlements if it.note_use_of is not None}
    if used:
        tx.policies.mark_used(used, clock())
