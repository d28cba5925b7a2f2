"""The readiness check behind `/ready`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from typing_extensions import TypedDict

from sentryagent_idp.errors import DatabaseUnavailable
from sentryagent_idp.ports import Store
from sentryagent_idp.use_cases.issuers import other_issuers
from sentryagent_idp.use_cases.key_ring import KeyRing

_STATES = ("fresh", "stale", "missing")


class ObservableKeys(Protocol):
    """The keys of an issuer, whose state can be read."""

    def status(self) -> Mapping[str, Any]:
        """Return `state` (fresh, stale or missing), `ageSeconds` and `lastError`, without a network request."""


class Readiness(TypedDict):
    """The state of each part: `ok`, or the problem.

    `issuers` has the keys of each issuer, `issuerKeys` those of the issuer in the worst state. `policiesOfOtherIssuers`
    counts the policies of issuers that are not configured, which match no run.
    """

    status: Literal["ready", "unavailable"]
    database: str
    migrations: str
    signingKey: str
    issuerKeys: dict[str, Any]
    issuers: dict[str, dict[str, Any]]
    policiesOfOtherIssuers: dict[str, int]


@dataclass(frozen=True, slots=True)
class ReadinessCheck:
    """Checks each part in turn."""

    store: Store
    keys: KeyRing
    issuer_keys: Mapping[str, ObservableKeys]
    migrations_pending: Callable[[], bool]

    def run(self) -> Readiness:
        """Return the current state, `ready` if database, migrations and signing key are all `ok`; never raises."""
        database = migrations = "ok"
        others: Mapping[str, int] = {}
        try:
            if self.migrations_pending():
                migrations, signing_key = "pending; run `sentryagent-idp migrate`", "unknown"
            else:
                signing_key = self._signing_key()
                others = other_issuers(self.store, self.issuer_keys)
        except DatabaseUnavailable:
            database = migrations = signing_key = "unavailable"
        issuers = {issuer: dict(keys.status()) for issuer, keys in self.issuer_keys.items()}
        return {
            "status": "ready" if {database, migrations, signing_key} == {"ok"} else "unavailable",
            "database": database,
            "migrations": migrations,
            "signingKey": signing_key,
            "issuerKeys": max(issuers.values(), key=_badness),
            "issuers": issuers,
            "policiesOfOtherIssuers": dict(others),
        }

    def _signing_key(self) -> str:
        try:
            with self.store.read() as tx:
                self.keys.current(tx)
        except DatabaseUnavailable:
            return "missing"
        return "ok"


def _badness(status: Mapping[str, Any]) -> tuple[int, int]:
    return _STATES.index(status["state"]), status["ageSeconds"] or 0
