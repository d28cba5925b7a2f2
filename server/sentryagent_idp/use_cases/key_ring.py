"""The provider's signing keys in this process: cached, and checked against the database's version at each use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import NoReturn
from uuid import uuid4

from sentryagent_idp.domain.audit import PROVIDER, Action, RequestContext
from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.errors import DatabaseUnavailable
from sentryagent_idp.ports import Clock, NewId, Store, Transaction
from sentryagent_idp.tokens.signing_key import Passphrases, SigningKey, UnreadableKey
from sentryagent_idp.use_cases import signing_keys
from sentryagent_idp.use_cases.audit import Auditor


@dataclass(frozen=True, slots=True)
class VersionedKeys:
    """The keys of one version: one signs, all verify and are published."""

    version: int
    active: SigningKey
    by_kid: Mapping[str, SigningKey]


def _raise(error: UnreadableKey) -> NoReturn:
    raise error


@dataclass(slots=True)
class KeyRing:
    """Caches the parsed keys, and reads their version from the database in the caller's own transaction.

    So every process refuses a revoked key from the next request on, at the cost of reading one row.
    `on_unreadable` gets the error of each key that cannot be read or trusted, once until its row changes. If it
    returns, the key is left out and the others are used.
    """

    passphrases: Passphrases = field(repr=False)
    on_unreadable: Callable[[UnreadableKey], None] = _raise
    cached: VersionedKeys | None = field(default=None, init=False)
    """The keys that were read last."""
    _unreadable: frozenset[StoredKey] = frozenset()
    _lock: Lock = field(default_factory=Lock)

    def current(self, tx: Transaction) -> VersionedKeys:
        """Return the keys that the database has now.

        Raises `DatabaseUnavailable` if the database has no key to sign with.
        """
        version = tx.signing_keys.version()
        cached = self.cached
        if cached is not None and cached.version == version:
            return cached
        with self._lock:
            # Another thread may have loaded the keys meanwhile: all threads notice a change at the same time.
            if self.cached is None or self.cached.version != version:
                self.cached = self._load(tx, version, self.cached.by_kid if self.cached else {})
            return self.cached

    def _load(self, tx: Transaction, version: int, known: Mapping[str, SigningKey]) -> VersionedKeys:
        """Load the keys that can be trusted; known keys are not parsed again."""
        stored = tx.signing_keys.all()
        read = {key.kid: known.get(key.kid) or self._read(key) for key in stored}
        self._unreadable = frozenset(key for key in stored if read[key.kid] is None)
        keys = {kid: key for kid, key in read.items() if key is not None}
        active = [keys[key.kid] for key in stored if key.status is KeyStatus.ACTIVE and key.kid in keys]
        if not active:
            raise DatabaseUnavailable(
                "The provider has no signing key that it can use; start it again with `sentryagent-idp serve`, "
                "which creates one or reports the problem.",
                retry_after=5,
            )
        return VersionedKeys(version, active[-1], keys)

    def _read(self, stored: StoredKey) -> SigningKey | None:
        """Parse a key, or return `None`; a row that failed is not tried again, because each try takes milliseconds."""
        if stored in self._unreadable:
            return None
        try:
            return signing_keys.opened(stored, self.passphrases)
        except UnreadableKey as error:
            self.on_unreadable(error)
            return None


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """Reads the keys for the public JWKS."""

    store: Store
    keys: KeyRing

    def current(self) -> VersionedKeys:
        """Return the keys that the database has now; raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            return self.keys.current(tx)


def ensure_signing_key(
    store: Store, alg: str, passphrases: Passphrases, clock: Clock, new_id: NewId = uuid4
) -> None:
    """Make sure that a key of the configured algorithm is active and the next one is published.

    If replicas start together, only one of them stores keys. Raises `UnreadableKey`, also for an unencrypted key if
    there is a passphrase, and `DatabaseUnavailable`.
    """
    ready = signing_keys.prepared(store, passphrases, clock(), lambda key: key.alg == alg, alg)
    with store.write() as tx:
        tx.signing_keys.lock()
        before = signing_keys.stages(tx.signing_keys)
        signing_keys.ensure(tx.signing_keys, alg, ready, clock())
        after = signing_keys.stages(tx.signing_keys)
        if after != before:
            at_start = RequestContext(request_id=str(new_id()), address=None)
            Auditor(clock, new_id).success(
                tx, at_start, Action.KEY_CREATED, PROVIDER, details={"alg": alg, **after}
            )
