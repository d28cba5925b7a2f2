"""Signing keys as their admins see them: listed, rotated, revoked; old ones are removed in time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sentryagent_idp.domain.audit import PROVIDER, Action, RequestContext
from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.errors import AdminRefused
from sentryagent_idp.ports import Clock, NewId, Store, Transaction
from sentryagent_idp.tokens import access_token, signing_key
from sentryagent_idp.tokens.signing_key import Passphrases
from sentryagent_idp.use_cases import key_life
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
            key_life.check(stored, self.passphrases)
        return stored

    def rotate(self, actor: str, context: RequestContext) -> StoredKey:
        """Let the next key sign, the active one only verify, and publish a new next one; returns what signs now.

        Raises `AdminRefused` where no key signs yet, `UnreadableKey`, `DatabaseUnavailable`.
        """
        with self.store.write() as tx:
            active = self._active(tx)
            key_life.check(tx.signing_keys.all(), self.passphrases)
            tx.signing_keys.set_status(active.kid, KeyStatus.RETIRED, retired_at=self.clock())
            self._complete(tx, active.alg)
            self._audit(tx, context, Action.KEY_ROTATED, actor, active)
            return self._active(tx)

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
            model = self._model(stored, gone)
            tx.signing_keys.remove(kid)
            self._complete(tx, model.alg)
            self._audit(tx, context, Action.KEY_REVOKED, actor, gone)
            return self._active(tx)

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
            before = key_life.rewrap(tx.signing_keys, self.passphrases)
            if before:
                clear = [key.kid for key in before if not key_life.is_encrypted(key)]
                details = {"kids": [key.kid for key in before], "clearKids": clear}
                self.auditor.success(tx, context, Action.KEY_REWRAPPED, actor, details=details)
        return before

    def unseen_for(self, key: StoredKey) -> int:
        """For how many seconds more a verifier may hold a JWKS that lacks the key (federation-security B30)."""
        published = int((self.clock() - key.created_at).total_seconds())
        return max(0, signing_key.JWKS_MAX_AGE_SECONDS - published)

    def _active(self, tx: Transaction) -> StoredKey:
        tx.signing_keys.lock()
        active = key_life.of(tx.signing_keys, KeyStatus.ACTIVE)
        if not active:
            raise AdminRefused("The provider has no signing key yet; `sentryagent-idp serve` makes it.")
        return active[-1]

    def _model(self, stored: Sequence[StoredKey], gone: StoredKey) -> StoredKey:
        """The newest key that can be read: a missing one is made like it.

        Raises `UnreadableKey` if any key cannot be read: what is made now, the running provider might not read. Only a
        key that cannot be read itself may go anyway, if another one shows that the passphrase is right.
        """
        readable = [key for key in stored if key_life.is_readable(key, self.passphrases)]
        if gone in readable or not readable:
            key_life.check(stored, self.passphrases)
        return readable[-1]

    def _complete(self, tx: Transaction, alg: str) -> None:
        key_life.complete(tx.signing_keys, alg, self.passphrases, self.clock())

    def _audit(
        self, tx: Transaction, context: RequestContext, action: Action, actor: str, key: StoredKey
    ) -> None:
        stages = key_life.stages(tx.signing_keys)
        self.auditor.success(tx, context, action, actor, details={"kid": key.kid, "alg": key.alg, **stages})


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
        retired = key_life.of(tx.signing_keys, KeyStatus.RETIRED)
        return [key for key in retired if key.retired_at is not None and key.retired_at < last]
