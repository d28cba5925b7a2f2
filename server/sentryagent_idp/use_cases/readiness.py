"""Whether the provider can serve: the facts behind `/ready`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sentryagent_idp.errors import DatabaseUnavailable
from sentryagent_idp.ports import Store
from sentryagent_idp.use_cases.key_ring import KeyRing


class ObservableKeys(Protocol):
    """GitHub's keys, as far as their state goes."""

    def status(self) -> Mapping[str, Any]:
        """`state` (fresh, stale or missing), `ageSeconds`, `lastError`; asks nobody."""


@dataclass(frozen=True, slots=True)
class Report:
    """The state of each part; `ok`, or what is wrong."""

    database: str
    migrations: str
    signing_key: str
    issuer_keys: Mapping[str, Any]

    @property
    def is_ready(self) -> bool:
        """Whether every part that an exchange needs is there."""
        return {self.database, self.migrations, self.signing_key} == {"ok"}

    def as_json(self) -> dict[str, Any]:
        """The body of `/ready`."""
        return {
            "status": "ready" if self.is_ready else "unavailable",
            "database": self.database,
            "migrations": self.migrations,
            "signingKey": self.signing_key,
            "issuerKeys": dict(self.issuer_keys),
        }


@dataclass(frozen=True, slots=True)
class Readiness:
    """Asks each part in turn."""

    store: Store
    keys: KeyRing
    issuer_keys: ObservableKeys
    migrations_pending: Callable[[], bool]

    def report(self) -> Report:
        """The present state; raises nothing."""
        database, migrations, signing_key = "ok", "ok", "ok"
        try:
            if self.migrations_pending():
                migrations = "pending; run `sentryagent-idp migrate`"
        except DatabaseUnavailable:
            database = migrations = signing_key = "unavailable"
        else:
            signing_key = self._signing_key(migrations)
        return Report(database, migrations, signing_key, self.issuer_keys.status())

    def _signing_key(self, migrations: str) -> str:
        if migrations != "ok":
            return "unknown"
        try:
            with self.store.read() as tx:
                self.keys.current(tx)
        except DatabaseUnavailable:
            return "missing"
        return "ok"
