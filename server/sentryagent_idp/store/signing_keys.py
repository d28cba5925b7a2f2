"""The table of keys that sign our tokens."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Column, LargeBinary, Table, Text, delete, insert, select, update
from sqlalchemy.engine import Connection, Row

from sentryagent_idp.domain.signing_key import KeyStatus, StoredKey
from sentryagent_idp.store import driver, locks
from sentryagent_idp.store.columns import METADATA, Moment, word_of

SIGNING_KEYS = Table(
    "signing_keys",
    METADATA,
    Column("kid", Text, primary_key=True),
    Column("alg", Text, nullable=False),
    Column("private_pem", LargeBinary, nullable=False),
    Column("status", word_of(KeyStatus), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("retired_at", Moment),
)

_T = SIGNING_KEYS.c
_ALL = select(SIGNING_KEYS).order_by(_T.created_at, _T.kid)
_STATE = "SELECT kid, status, retired_at, substr(private_pem, 1, 160) FROM signing_keys ORDER BY kid"
"""The first bytes of an encrypted key include its salt, so that re-encrypting a key also counts as a change."""


class SigningKeyTable:
    """Signing keys in one transaction (`sentryagent_idp.ports.SigningKeys`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lock(self) -> None:
        locks.take(self._connection, locks.Lock.SIGNING_KEYS)

    def all(self) -> Sequence[StoredKey]:
        return [_key(row) for row in self._connection.execute(_ALL)]

    def add(self, key: StoredKey) -> None:
        self._connection.execute(insert(SIGNING_KEYS), asdict(key))

    def set_pem(self, kid: str, private_pem: bytes) -> None:
        self._update(kid, private_pem=private_pem)

    def set_status(self, kid: str, status: KeyStatus, *, retired_at: datetime | None) -> None:
        self._update(kid, status=status, retired_at=retired_at)

    def _update(self, kid: str, **values: Any) -> None:
        self._connection.execute(update(SIGNING_KEYS).where(_T.kid == kid).values(values))

    def remove(self, kid: str) -> None:
        self._connection.execute(delete(SIGNING_KEYS).where(_T.kid == kid))

    def version(self) -> int:
        # Computed from the few rows themselves: code could forget to increment a separate counter.
        return hash(tuple(driver.run(self._connection, _STATE)))


def _key(row: Row[Any]) -> StoredKey:
    """Return the key of a row; SQLite returns text if another program stored the PEM as text."""
    values = row._asdict()
    pem = values["private_pem"]
    return StoredKey(**values | {"private_pem": pem.encode() if isinstance(pem, str) else pem})
