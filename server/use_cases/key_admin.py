"""Signing keys as their admins see them: listed, rotated, revoked; old ones are removed in time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from server.domain.audit import PROVIDER, Action, RequestContext
from server.errors import AdminRefused
from server.ports import Clock, KeyStatus, NewId, Store, StoredKey, Transaction
from server.tokens import access_token, signing_keys
from server.use_cases import key_life
from server.use_cases.auditing import Auditor


@dataclass(frozen=True, slots=True)
class KeyAdmin:
    """The use cases of the signing keys."""

    store: Store
    auditor: Auditor
    clock: Clock
    passphrase: str | None

    def all(self) -> Sequence[StoredKey]:
        """Every key, oldest first; raises `DatabaseUnavailable`."""
        with self.store.read() as tx:
            return tx.signing_keys.all()

    def rotate(self, actor: str, context: RequestContext) -> StoredKey:
        """Let the next key sign, the active one only verify, and publish a new next one; returns what signs now.

        Raises `AdminRefused` where no key signs yet, `UnreadableKey`, `DatabaseUnavailable`.
        """
        with self.store.write() as tx:
            active = self._active(tx)
            tx.signing_keys.set_status(active.kid, KeyStatus.RETIRED, retired_at=self.clock())
            self._complete(tx, active)
            self._audit(tx, context, Action.KEY_ROTATED, actor, active)
            return self._active(tx)

    def revoke(self, actor: str, kid: str, context: RequestContext) -> StoredKey:
        """Forget a key: what it signed is refused by the next request in every process; returns what signs now.

        Where it was the active one, the next one signs. Raises as `rotate`, and `AdminRefused` for an unknown `kid`.
        """
        with self.store.write() as tx:
            active = self._active(tx)
            gone = next((key for key in tx.signing_keys.all() if key.kid == kid), None)
            if gone is None:
                raise AdminRefused(f"There is no signing key {kid}; `sentryagent-idp keys list` shows them.")
            tx.signing_keys.remove(kid)
            self._complete(tx, active)
            self._audit(tx, context, Action.KEY_REVOKED, actor, gone)
            return self._active(tx)

    def unseen_for(self, key: StoredKey) -> int:
        """For how many seconds more a verifier may hold a JWKS that lacks the key (federation-security B30)."""
        published = int((self.clock() - key.created_at).total_seconds())
        return max(0, signing_keys.JWKS_MAX_AGE_SECONDS - published)

    def _active(self, tx: Transaction) -> StoredKey:
        tx.signing_keys.lock()
        active = key_life.of(tx.signing_keys, KeyStatus.ACTIVE)
        if not active:
            raise AdminRefused("The provider has no signing key yet; `sentryagent-idp serve` makes it.")
        return active[-1]

    def _complete(self, tx: Transaction, model: StoredKey) -> None:
        """Make the missing key like `model`, and in clear where that one is: the running provider must read it."""
        signing_keys.from_pem(model.private_pem, self.passphrase)
        passphrase = self.passphrase if key_life.is_encrypted(model) else None
        key_life.complete(tx.signing_keys, model.alg, passphrase, self.clock())

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
