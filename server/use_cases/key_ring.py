"""The provider's signing keys in this process: loaded once, checked against the database's version for each use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from uuid import uuid4

from server.domain.audit import PROVIDER, Action, RequestContext
from server.errors import DatabaseUnavailable
from server.ports import Clock, KeyStatus, NewId, Store, Transaction
from server.tokens.signing_keys import SigningKey, from_pem
from server.use_cases import key_life
from server.use_cases.auditing import Auditor


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one version: one signs, all verify and are published."""

    version: int
    active: SigningKey
    by_kid: Mapping[str, SigningKey]


@dataclass(slots=True)
class KeyRing:
    """Holds the parsed keys; asks the database for their version in the caller's own transaction.

    So a revoked key is refused by the next request in every process, at the price of one row.
    """

    passphrase: str | None = field(repr=False)
    _held: KeySet | None = None
    _lock: Lock = field(default_factory=Lock)

    @property
    def held(self) -> KeySet | None:
        """The key set as it was read last."""
        return self._held

    def current(self, tx: Transaction) -> KeySet:
        """The key set as the database has it now.

        Raises `DatabaseUnavailable` where the database has no signing key yet.
        """
        version = tx.signing_keys.version()
        held = self._held
        if held is not None and held.version == version:
            return held
        with self._lock:
            # Meanwhile another thread may have read them: a change is seen by all at the same moment.
            if self._held is None or self._held.version != version:
                self._held = self._load(tx, version, self._held.by_kid if self._held else {})
            return self._held

    def _load(self, tx: Transaction, version: int, known: Mapping[str, SigningKey]) -> KeySet:
        """The keys of the database; those that are known already are not read again."""
        stored = tx.signing_keys.all()
        keys = {key.kid: known.get(key.kid) or from_pem(key.private_pem, self.passphrase) for key in stored}
        active = [keys[key.kid] for key in stored if key.status is KeyStatus.ACTIVE]
        if not active:
            raise DatabaseUnavailable(
                "The provider has no signing key; `sentryagent-idp serve` makes one when it starts.",
                retry_after=5,
            )
        return KeySet(version, active[-1], keys)


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """The keys as anybody may see them."""

    store: Store
    keys: KeyRing

    def current(self) -> KeySet:
        """The key set as the database has it now; raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            return self.keys.current(tx)


def ensure_signing_key(
    store: Store, alg: str, passphrase: str | None, clock: Clock, new_id: NewId = uuid4
) -> None:
    """Make sure that a key of the configured algorithm signs and the next one is published.

    Of replicas that start together one makes them. Keys in clear are encrypted where there is a passphrase.
    Raises `UnreadableKey`, `DatabaseUnavailable`.
    """
    with store.write() as tx:
        tx.signing_keys.lock()
        before = key_life.stages(tx.signing_keys)
        key_life.ensure(tx.signing_keys, alg, passphrase, clock())
        after = key_life.stages(tx.signing_keys)
        if after != before:
            at_start = RequestContext(request_id=str(new_id()), address=None)
            Auditor(clock, new_id).success(
                tx, at_start, Action.KEY_CREATED, PROVIDER, details={"alg": alg, **after}
            )
