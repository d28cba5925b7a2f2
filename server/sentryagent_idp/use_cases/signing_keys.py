"""The lifecycle of our signing keys (next, active, retired, removed) and their administration.

The next key is published from its creation on, so that verifiers have it before it signs (B30).
Every function here that changes keys needs `SigningKeys.lock`, or replicas that start together would each add a key.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sentryagent_idp.domain.audit import PROVIDER, Action, RequestContext
from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.errors import AdminRefused
from sentryagent_idp.ports import Clock, NewId, SigningKeys, Store, Transaction
from sentryagent_idp.tokens import access_token, signing_key
from sentryagent_idp.tokens.signing_key import Passphrases, SigningKey, UnreadableKey
from sentryagent_idp.use_cases.audit import Auditor


@dataclass(slots=True)
class Prepared:
    """Keys opened or generated before a write transaction, which exchanges wait for: an RSA key takes tenths of a second.

    The transaction still decides on the rows that it reads. It opens a row that changed meanwhile, and generates a key
    if there is no spare one.
    """

    passphrases: Passphrases = field(repr=False)
    spares: list[StoredKey] = field(default_factory=list, repr=False)
    _problems: dict[StoredKey, UnreadableKey | None] = field(default_factory=dict, repr=False)

    def is_readable(self, stored: StoredKey) -> bool:
        """Whether the key of a row can be read and trusted."""
        return self._problem(stored) is None

    def check(self, stored: Sequence[StoredKey]) -> None:
        """Raise `UnreadableKey` for the first key that cannot be read or trusted."""
        for key in stored:
            problem = self._problem(key)
            if problem is not None:
                raise problem

    def make(self, alg: str, status: KeyStatus, now: datetime) -> StoredKey:
        """Return a new key, created `now`: a spare one, if it has this algorithm."""
        fits = self.spares and self.spares[-1].alg == alg
        key = self.spares.pop() if fits else _fresh(alg, self.passphrases, status, now)
        return replace(key, status=status, created_at=now)

    def _problem(self, stored: StoredKey) -> UnreadableKey | None:
        # Keyed by the whole row: by `kid` alone, a key that an attacker swaps in meanwhile would pass for the opened one.
        if stored not in self._problems:
            self._problems[stored] = _problem(stored, self.passphrases)
        return self._problems[stored]


def prepared(
    store: Store,
    passphrases: Passphrases,
    now: datetime,
    stays: Callable[[StoredKey], bool],
    alg: str | None = None,
) -> Prepared:
    """Open all keys, and generate those that will be missing if only the keys that `stays` accepts keep their status.

    New keys have the algorithm `alg`, by default that of the newest readable key. Raises `DatabaseUnavailable`.
    """
    stored = _rows(store)
    ready = Prepared(passphrases)
    algs = [key.alg for key in stored if ready.is_readable(key)]
    missing = {KeyStatus.ACTIVE, KeyStatus.NEXT} - {key.status for key in stored if stays(key)}
    like = alg or (algs[-1] if algs else None)
    if like is not None:
        ready.spares += [_fresh(like, passphrases, status, now) for status in missing]
    return ready


@dataclass(frozen=True, slots=True)
class KeyAdmin:
    """The use cases of the signing keys."""

    store: Store
    auditor: Auditor
    clock: Clock
    passphrases: Passphrases = field(repr=False)

    def all(self) -> Sequence[StoredKey]:
        """Return all keys, oldest first; if there is a passphrase, checks that each can be read.

        Raises `UnreadableKey`, `DatabaseUnavailable`.
        """
        stored = _rows(self.store)
        if self.passphrases:
            Prepared(self.passphrases).check(stored)
        return stored

    def rotate(self, actor: str, context: RequestContext) -> StoredKey:
        """Activate the next key, retire the active one and publish a new next one; returns the key that is active now.

        Raises `AdminRefused` if no key is active yet, `UnreadableKey`, `DatabaseUnavailable`.
        """
        ready = self._prepared(_does_not_sign)
        with self.store.write() as tx:
            return self._rotate(tx, ready, self._active(tx), actor, context)

    def rotate_if_older(self, actor: str, age: timedelta, context: RequestContext) -> StoredKey | None:
        """Rotate as `rotate` does if the newest key was created at least `age` ago; returns `None` if not.

        Each rotation creates a key, so the newest key shows when the last rotation was.
        """
        ready = self._prepared(_does_not_sign)
        with self.store.write() as tx:
            active = self._active(tx)  # locks, so that of timers on several machines only the first rotates
            newest = max(key.created_at for key in tx.signing_keys.all())
            is_due = self.clock() - newest >= age
            return self._rotate(tx, ready, active, actor, context) if is_due else None

    def revoke(self, actor: str, kid: str, context: RequestContext) -> StoredKey:
        """Delete a key, so that every process refuses its tokens from the next request on; returns the active key.

        If it was the active one, the next one takes over. Raises the same errors as `rotate`, and `AdminRefused` for an
        unknown `kid`.
        """
        ready = self._prepared(lambda key: key.kid != kid)
        with self.store.write() as tx:
            self._active(tx)
            stored = tx.signing_keys.all()
            gone = next((key for key in stored if key.kid == kid), None)
            if gone is None:
                raise AdminRefused(f"There is no signing key {kid}; `sentryagent-idp keys list` shows them.")
            alg = _model(ready, stored, gone).alg
            tx.signing_keys.remove(kid)
            return self._succeed(tx, ready, alg, context, Action.KEY_REVOKED, actor, gone)

    def rewrap(self, actor: str, context: RequestContext) -> Sequence[StoredKey]:
        """Encrypt every key with the current passphrase; returns those that were unencrypted or under the previous one.

        Raises `AdminRefused` without a passphrase, `UnreadableKey`, `DatabaseUnavailable`.
        """
        if not self.passphrases:
            raise AdminRefused("Set SENTRYAGENT_KEY_ENCRYPTION_KEY to the key to encrypt them with.")
        rewrapped = cache(self._rewrapped)
        for stored in _rows(self.store):
            rewrapped(stored)  # before the transaction, for the reason given at `Prepared`
        with self.store.write() as tx:
            tx.signing_keys.lock()
            pems = {key: pem for key in tx.signing_keys.all() if (pem := rewrapped(key))}
            for stored, pem in pems.items():
                tx.signing_keys.set_pem(stored.kid, pem)
            before = list(pems)
            if before:
                clear = [key.kid for key in before if not is_encrypted(key)]
                details = {"kids": [key.kid for key in before], "clearKids": clear}
                self.auditor.success(tx, context, Action.KEY_REWRAPPED, actor, details=details)
        return before

    def unseen_for(self, key: StoredKey) -> int:
        """For how many more seconds a verifier may hold a JWKS without the key (B30)."""
        published = int((self.clock() - key.created_at).total_seconds())
        return max(0, signing_key.JWKS_MAX_AGE_SECONDS - published)

    def _prepared(self, stays: Callable[[StoredKey], bool]) -> Prepared:
        return prepared(self.store, self.passphrases, self.clock(), stays)

    def _rotate(
        self, tx: Transaction, ready: Prepared, active: StoredKey, actor: str, context: RequestContext
    ) -> StoredKey:
        ready.check(tx.signing_keys.all())
        tx.signing_keys.set_status(active.kid, KeyStatus.RETIRED, retired_at=self.clock())
        return self._succeed(tx, ready, active.alg, context, Action.KEY_ROTATED, actor, active)

    def _rewrapped(self, stored: StoredKey) -> bytes | None:
        """The key's PEM under the current passphrase, or `None` if it is stored that way; raises `UnreadableKey`."""
        if _problem(stored, self.passphrases[:1]) is None:
            return None
        # Only here is an unencrypted key trusted although there is a passphrase.
        key = opened(stored, self.passphrases if is_encrypted(stored) else ())
        return signing_key.to_pem(key, self.passphrases)

    def _active(self, tx: Transaction) -> StoredKey:
        tx.signing_keys.lock()
        active = _with_status(tx.signing_keys, KeyStatus.ACTIVE)
        if not active:
            raise AdminRefused("The provider has no signing key yet; `sentryagent-idp serve` creates it.")
        return active[-1]

    def _succeed(
        self,
        tx: Transaction,
        ready: Prepared,
        alg: str,
        context: RequestContext,
        action: Action,
        actor: str,
        key: StoredKey,
    ) -> StoredKey:
        """Create the keys that are missing now that `key` is retired or deleted, and audit it; returns the active key."""
        _complete(tx.signing_keys, alg, ready, self.clock())
        details = {"kid": key.kid, "alg": key.alg, **stages(tx.signing_keys)}
        self.auditor.success(tx, context, action, actor, details=details)
        return self._active(tx)


def active_key_age(store: Store, now: datetime) -> float | None:
    """How many seconds ago the active key was created, or `None` without one. Raises `DatabaseUnavailable`."""
    with store.read() as tx:
        active = _with_status(tx.signing_keys, KeyStatus.ACTIVE)
    return (now - active[-1].created_at).total_seconds() if active else None


@dataclass(frozen=True, slots=True)
class RetiredKeys:
    """Removes retired keys once no token that they signed can still be valid; `token_ttl` is in seconds."""

    store: Store
    auditor: Auditor
    clock: Clock
    new_id: NewId
    token_ttl: int

    def run(self) -> int:
        """Remove all keys that are due; returns how many. Raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            if not self._due(tx):
                return 0
        with self.store.write() as tx:
            tx.signing_keys.lock()
            due = self._due(tx)
            for key in due:
                tx.signing_keys.remove(key.kid)
                context = RequestContext(request_id=str(self.new_id()), address=None)
                details = {"kid": key.kid, "alg": key.alg}
                self.auditor.success(tx, context, Action.KEY_REMOVED, PROVIDER, details=details)
        return len(due)

    def _due(self, tx: Transaction) -> Sequence[StoredKey]:
        last = self.clock() - timedelta(seconds=self.token_ttl + access_token.LEEWAY_SECONDS)
        retired = _with_status(tx.signing_keys, KeyStatus.RETIRED)
        return [key for key in retired if key.retired_at is not None and key.retired_at < last]


def ensure(keys: SigningKeys, alg: str, ready: Prepared, now: datetime) -> None:
    """Ensure that there are an active and a next key of `alg`; an active key of another algorithm is retired.

    Raises `UnreadableKey` before anything changes.
    """
    stored = keys.all()
    ready.check(stored)
    for key in stored:
        if key.alg != alg and key.status is KeyStatus.ACTIVE:
            keys.set_status(key.kid, KeyStatus.RETIRED, retired_at=now)
        if key.alg != alg and key.status is KeyStatus.NEXT:
            keys.remove(key.kid)  # it never signed, so no token needs it
    _complete(keys, alg, ready, now)


def _complete(keys: SigningKeys, alg: str, ready: Prepared, now: datetime) -> None:
    """Activate the next key if none is active, and create the keys that are missing."""
    if not _with_status(keys, KeyStatus.ACTIVE):
        published = _with_status(keys, KeyStatus.NEXT)
        if published:
            keys.set_status(published[0].kid, KeyStatus.ACTIVE, retired_at=None)
        else:
            keys.add(ready.make(alg, KeyStatus.ACTIVE, now))
    if not _with_status(keys, KeyStatus.NEXT):
        keys.add(ready.make(alg, KeyStatus.NEXT, now))


def _rows(store: Store) -> Sequence[StoredKey]:
    with store.read() as tx:
        return tx.signing_keys.all()


def _with_status(keys: SigningKeys, status: KeyStatus) -> Sequence[StoredKey]:
    return [key for key in keys.all() if key.status is status]


def stages(keys: SigningKeys) -> dict[str, Any]:
    """The ids of the keys in each stage, for the audit."""
    stored = keys.all()
    return {
        f"{status.value}Kids": [key.kid for key in stored if key.status is status] for status in KeyStatus
    }


def opened(stored: StoredKey, passphrases: Passphrases) -> SigningKey:
    """Open the key of a row. Raises `UnreadableKey`, also if the row has the id or the algorithm of another key."""
    try:
        key = signing_key.from_pem(stored.private_pem, passphrases)
    except UnreadableKey as error:
        raise UnreadableKey(f"Signing key {stored.kid}: {error}") from error
    if (key.kid, key.alg) != (stored.kid, stored.alg):
        raise UnreadableKey(
            f"Signing key {stored.kid}: its row contains a different key; remove it with `sentryagent-idp keys revoke`."
        )
    return key


def _problem(stored: StoredKey, passphrases: Passphrases) -> UnreadableKey | None:
    try:
        opened(stored, passphrases)
    except UnreadableKey as error:
        return error
    return None


def _does_not_sign(key: StoredKey) -> bool:
    return key.status is not KeyStatus.ACTIVE


def _model(ready: Prepared, stored: Sequence[StoredKey], gone: StoredKey) -> StoredKey:
    """Return the newest key that can be read, whose algorithm new keys get.

    Raises `UnreadableKey` if any key cannot be read, because the running provider might not be able to read new keys.
    Only an unreadable key may be removed nevertheless, if a readable one proves that the passphrase is right.
    """
    readable = [key for key in stored if ready.is_readable(key)]
    if gone in readable or not readable:
        ready.check(stored)
    return readable[-1]


def is_encrypted(key: StoredKey) -> bool:
    """Whether the private key is stored under a passphrase."""
    return signing_key.is_encrypted(key.private_pem)


def _fresh(alg: str, passphrases: Passphrases, status: KeyStatus, now: datetime) -> StoredKey:
    key = signing_key.generate(alg)
    return StoredKey(key.kid, alg, signing_key.to_pem(key, passphrases), status, created_at=now)
