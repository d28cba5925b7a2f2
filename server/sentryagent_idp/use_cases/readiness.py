"""Whether the provider can serve: the state behind `/ready`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from typing_extensions import TypedDict

from sentryagent_idp.errors import DatabaseUnavailable
from sentryagent_idp.ports import Store
from sentryagent_idp.use_cases.key_ring import KeyRing


class ObservableKeys(Protocol):
    """GitHub's keys, as far as their state goes."""

    def status(self) -> Mapping[str, Any]:
        """`state` (fresh, stale or missing), `ageSeconds`, `lastError`; asks nobody."""


class Readiness(TypedDict):
    """The state of each part: `ok`, or what is wrong."""

    status: Literal["ready", "unavailable"]
    database: str
    migrations: str
    signingKey: str
    issuerKeys: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReadinessCheck:
    """Asks each part in turn."""

    store: Store
    keys: KeyRing
    issuer_keys: ObservableKeys
    migrations_pending: Callable[[], bool]

    def run(self) -> Readiness:
        """The present state, `ready` if every part that an exchange needs is there; raises nothing."""
        database = migrations = "ok"
        try:
            if self.migrations_pending():
                migrations, signing_key = "pending; run `sentryagent-idp migrate`", "unknown"
            else:
                signing_key = self._signing_key()
        except DatabaseUnavailable:
            database = migrations = signing_key = "unavailable"
        return {
            "status": "ready" if {database, migrations, signing_key} == {"ok"} else "unavailable",
            "database": database,
            "migrations": migrations,
            "signingKey": signing_key,
            "issuerKeys": dict(self.issuer_keys.status()),
        }

    def _signing_key(self) -> str:
        try:
            with self.store.read() as tx:
                self.keys.current(tx)
        except DatabaseUnavailable:
            return "missing"
        return "ok"
