"""Our signing keys: their life (next, active, retired, gone), and what their admins see and do.

The next key is published from the beginning, so that verifiers hold it before it signs (federation-security B30).
Every function here needs `SigningKeys.lock`, or replicas that start together would each make a key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sentryagent_idp.domain.audit import PROVIDER, Action, RequestContext
from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.errors import AdminRefused
from sentryagent_idp.ports import Clock, NewId, SigningKeys, Store, Transaction
from sentryagent_idp.tokens import access_token, signing_key
from sentryagent_idp.tokens.signing_key import Passphrases, SigningKey, UnreadableKey
from sentryagent_idp.use_cases.audit import Auditor


@dataclass(frozen=True, slots=True)
class KeyAdmin:
    """The use cases of the signing keys."""

    store: Store
    auditor: Auditor
    clock: Clock
    passphrases: Passphrases = field(repr=False)

    def all(self) -> Sequence[StoredKey]:
        """Every key, oldest first; without a passphrase none of them is read.

        Raises `UnreadableKey`, `DatabaseUnavailable`.
        """
        with self.store.read() as tx:
            stored = tx.signing_keys.all()
        if self.passphrases:
            _check(stored, self.passphrases)
        return stored

    def rotate(self, actor: str, context: RequestContext) -> StoredKey:
        """Let the next key sign, the active one only verify, and publish a new next one; returns what signs now.

        Raises `AdminRefused` where no key signs yet, `UnreadableKey`, `DatabaseUnavailable`.
        """
        with self.store.write() as tx:
            active = self._active(tx)
            _check(tx.signing_keys.all(), self.passphrases)
            tx.signing_keys.set_status(active.kid, KeyStatus.RETIRED, retired_at=self.clock())
            return self._succeed(tx, active.alg, context, Action.KEY_ROTATED, actor, active)

    def revoke(self, actor: str, kid: str, context: RequestContext) -> StoredKey:
        """Forget a key: what it signed is refused by the next request in every process; returns what signs now.

        Where it was the active one, the next one signs. Raises as `rotate`, and `AdminRefused` for an unknown `kid`.
        """
        with self.store.write() as tx:
            self._active(tx)
            stored = tx.signing_keys.all()
            gone = next((key for key in stored if key.kid == kid), None)
            if gone is None:
                raise AdminRefused(f"There is no signing key {kid}; `sentryagent-idp keys list` shows them.")
            alg = self._model(stored, gone).alg
            tx.signing_keys.remove(kid)
            return self._succeed(tx, alg, context, Action.KEY_REVOKED, actor, gone)

    def rewrap(self, actor: str, context: RequestContext) -> Sequence[StoredKey]:
        """Store every key under the current passphrase; returns those that were in clear or under the previous one.

        Raises `AdminRefused` without a passphrase, `UnreadableKey`, `DatabaseUnavailable`.
        """
        if not self.passphrases:
            raise AdminRefused(
                "Set SENTRYAGENT_KEY_ENCRYPTION_KEY to what the keys are to be encrypted with."
            )
        with self.store.write() as tx:
            tx.signing_keys.lock()
            # Only here is a key in clear trusted although there is a passphrase.
            before = [key for key in tx.signing_keys.all() if not _is_readable(key, self.passphrases[:1])]
            for stored in before:
                key = opened(stored, self.passphrases if is_encrypted(stored) else ())
                tx.signing_keys.set_pem(stored.kid, signing_key.to_pem(key, self.passphrases))
            if before:
                clear = [key.kid for key in before if not is_encrypted(key)]
                details = {"kids": [key.kid for key in before], "clearKids": clear}
                self.auditor.success(tx, context, Action.KEY_REWRAPPED, actor, details=details)
        return before

    def unseen_for(self, key: StoredKey) -> int:
        """For how many seconds more a verifier may hold a JWKS that lacks the key (federation-security B30)."""
        published = int((self.clock() - key.created_at).total_seconds())
        return max(0, signing_key.JWKS_MAX_AGE_SECONDS - published)

    def _active(self, tx: Transaction) -> StoredKey:
        tx.signing_keys.lock()
        active = _with_status(tx.signing_keys, KeyStatus.ACTIVE)
        if not active:
            raise AdminRefused("The provider has no signing key yet; `sentryagent-idp serve` makes it.")
        return active[-1]

    def _model(self, stored: Sequence[StoredKey], gone: StoredKey) -> StoredKey:
        """The newest key that can be read: a missing one is made like it.

        Raises `UnreadableKey` if any key cannot be read: what is made now, the running provider might not read. Only a
        key that cannot be read itself may go anyway, if another one shows that the passphrase is right.
        """
        readable = [key for key in stored if _is_readable(key, self.passphrases)]
        if gone in readable or not readable:
            _check(stored, self.passphrases)
        return readable[-1]

    def _succeed(
        self, tx: Transaction, alg: str, context: RequestContext, action: Action, actor: str, key: StoredKey
    ) -> StoredKey:
        """Make the keys that are missing after `key` and record it; returns what signs now."""
        _complete(tx.signing_keys, alg, self.passphrases, self.clock())
        details = {"kid": key.kid, "alg": key.alg, **stages(tx.signing_keys)}
        self.auditor.success(tx, context, action, actor, details=details)
        return self._active(tx)


def active_key_age(store: Store, now: datetime) -> float | None:
    """How many seconds ago the key that signs was created; `None` without one. Raises `DatabaseUnavailable`."""
    with store.read() as tx:
        active = _with_status(tx.signing_keys, KeyStatus.ACTIVE)
    return (now - active[-1].created_at).total_seconds() if active else None


@dataclass(frozen=True, slots=True)
class RetiredKeys:
    """Removes retired keys when no token that they signed can be valid any more; `token_ttl` is in seconds."""

    store: Store
    auditor: Auditor
    clock: Clock
    new_id: NewId
    token_ttl: int

    def run(self) -> int:
        """Remove all that are due; returns how many went. Raises `DatabaseUnavailable`."""
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


def ensure(keys: SigningKeys, alg: str, passphrases: Passphrases, now: datetime) -> None:
    """Let a key of `alg` sign and another stand ready; an active one of another algorithm retires.

    Raises `UnreadableKey` before anything changes.
    """
    stored = keys.all()
    _check(stored, passphrases)
    for key in stored:
        if key.alg != alg and key.status is KeyStatus.ACTIVE:
            keys.set_status(key.kid, KeyStatus.RETIRED, retired_at=now)
        if key.alg != alg and key.status is KeyStatus.NEXT:
            keys.remove(key.kid)  # it never signed, so nobody misses it
    _complete(keys, alg, passphrases, now)


def _complete(keys: SigningKeys, alg: str, passphrases: Passphrases, now: datetime) -> None:
    """Promote the next key where none is active, and make the ones that are missing."""
    if not _with_status(keys, KeyStatus.ACTIVE):
        ready = _with_status(keys, KeyStatus.NEXT)
        if ready:
            keys.set_status(ready[0].kid, KeyStatus.ACTIVE, retired_at=None)
        else:
            keys.add(_fresh(alg, passphrases, KeyStatus.ACTIVE, now))
    if not _with_status(keys, KeyStatus.NEXT):
        keys.add(_fresh(alg, passphrases, KeyStatus.NEXT, now))


def _with_status(keys: SigningKeys, status: KeyStatus) -> Sequence[StoredKey]:
    return [key for key in keys.all() if key.status is status]


def stages(keys: SigningKeys) -> dict[str, Any]:
    """Which key is in which stage, for the audit."""
    return {f"{status.value}Kids": [key.kid for key in _with_status(keys, status)] for status in KeyStatus}


def opened(stored: StoredKey, passphrases: Passphrases) -> SigningKey:
    """The key of a row. Raises `UnreadableKey`, also if the row has the id or the algorithm of another key."""
    try:
        key = signing_key.from_pem(stored.private_pem, passphrases)
    except UnreadableKey as error:
        raise UnreadableKey(f"Signing key {stored.kid}: {error}") from error
    if (key.kid, key.alg) != (stored.kid, stored.alg):
        raise UnreadableKey(
            f"Signing key {stored.kid}: its row holds another key; remove it with `sentryagent-idp keys revoke`."
        )
    return key


def _check(stored: Sequence[StoredKey], passphrases: Passphrases) -> None:
    for key in stored:
        opened(key, passphrases)


def _is_readable(stored: StoredKey, passphrases: Passphrases) -> bool:
    try:
        opened(stored, passphrases)
    except UnreadableKey:
        return False
    return True


def is_encrypted(key: StoredKey) -> bool:
    """Whether the private key is stored under a passphrase."""
    return signing_key.is_encrypted(key.private_pem)


def _fresh(alg: str, passphrases: Passphrases, status: KeyStatus, now: datetime) -> StoredKey:
    key = signing_key.generate(alg)
    return StoredKey(key.kid, alg, signing_key.to_pem(key, passphrases), status, created_at=now)
