"""Database transactions, as the use cases need them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Self

from sqlalchemy import text
from sqlalchemy.engine import Connection

from sentryagent_idp.ports import Transaction, WriterBusy
from sentryagent_idp.store import sqlite
from sentryagent_idp.store.agents import AgentTable
from sentryagent_idp.store.audit import AuditTable
from sentryagent_idp.store.audit_seals import AuditSealTable
from sentryagent_idp.store.clients import ClientTable
from sentryagent_idp.store.columns import METADATA
from sentryagent_idp.store.credentials import CredentialTable
from sentryagent_idp.store.engines import open_engines
from sentryagent_idp.store.failures import outages
from sentryagent_idp.store.revoked_tokens import RevokedTokenTable
from sentryagent_idp.store.schema import pending
from sentryagent_idp.store.services import ServiceTable
from sentryagent_idp.store.settings import PublishedSettingTable
from sentryagent_idp.store.signing_keys import SigningKeyTable
from sentryagent_idp.store.trust_policies import PolicyTable
from sentryagent_idp.store.url import parse
from sentryagent_idp.store.used_tokens import UsedTokenTable


class _Timed:
    """Reports the duration of a transaction in seconds, even if it failed."""

    __slots__ = ("_began", "_observe", "_operation")

    def __init__(self, observe: Callable[[str, float], object], operation: str) -> None:
        self._observe = observe
        self._operation = operation

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._observe(self._operation, perf_counter() - self._began)


class Database:
    """An existing database (`sentryagent_idp.ports.Store`); `sentryagent_idp.store.schema.migrate` creates one.

    Raises `DatabaseUrlError` for an unusable URL. Nothing is connected before the first transaction.
    Create one in each process: connections do not survive a fork. `observe` gets `read` or `write` and the duration of
    each transaction in seconds, including the wait for a connection or for the lock of writers; it is not called for
    `write_at_once`, whose caller knows how long it waited.
    """

    def __init__(self, url: str, observe: Callable[[str, float], object] = lambda *_: None) -> None:
        self._observe = observe
        self._engines = open_engines(parse(url))
        self._committer: tuple[Connection, Transaction] | None = None

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        with _Timed(self._observe, "read"), outages(), self._engines.reader.begin() as connection:
            yield _transaction(connection, lock=False)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Transaction]:
        engine = self._engines.writer if durable else self._engines.lax
        with (
            _Timed(self._observe, "write"),
            outages(),
            self._engines.hold_write_lock(),
            engine.begin() as connection,
        ):
            yield _transaction(connection, lock=True)

    @property
    def is_local(self) -> bool:
        return self._engines.is_local

    @contextmanager
    def write_at_once(self) -> Iterator[Transaction]:
        with outages():
            if self._committer is None:
                connection = self._engines.committer.connect()
                self._committer = connection, _transaction(connection, lock=True)
            connection, transaction = self._committer
            try:
                with sqlite.at_once(connection):
                    yield transaction
            except WriterBusy:
                raise
            except BaseException:
                self._committer = None
                connection.close()
                raise

    def is_prepared(self) -> bool:
        """Return whether the schema has every step of this version; raises `DatabaseUnavailable`."""
        with outages(), self._engines.reader.begin() as connection:
            return not pending(connection)

    def missing_rights(self, *, deletes_audit: bool) -> str:
        """Return the privileges that the database user lacks, such as `INSERT on agents`; empty if it lacks none.

        With `deletes_audit`, the user must be allowed to delete expired audit records. Raises `DatabaseUnavailable`, also for a read-only file.
        """
        with (
            outages(to_operator=True),
            self._engines.hold_write_lock(),
            self._engines.writer.begin() as connection,
        ):
            if self.is_local:
                return ""
            needed = [
                (right, table.name)
                for table in METADATA.sorted_tables
                for right in _rights(table.name, deletes_audit=deletes_audit)
            ]
            may = text("SELECT has_table_privilege(:table, :right)")
            return ", ".join(
                f"{right} on {table}"
                for right, table in needed
                if not connection.scalar(may, {"table": table, "right": right})
            )

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._committer is not None:
            self._committer[0].close()
            self._committer = None
        self._engines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _rights(table: str, *, deletes_audit: bool) -> Sequence[str]:
    if not table.startswith("audit_"):
        return "SELECT", "INSERT", "UPDATE", "DELETE"
    # A sealed batch closes gaps.
    return ("SELECT", "INSERT", "DELETE") if deletes_audit or table == "audit_gaps" else ("SELECT", "INSERT")


def _transaction(connection: Connection, *, lock: bool) -> Transaction:
    seals = AuditSealTable(connection)
    return Transaction(
        policies=PolicyTable(connection, lock=lock),
        services=ServiceTable(connection, lock=lock),
        agents=AgentTable(connection, lock=lock),
        credentials=CredentialTable(connection),
        clients=ClientTable(connection, lock=lock),
        used_tokens=UsedTokenTable(connection),
        revoked_tokens=RevokedTokenTable(connection),
        audit=AuditTable(connection, seals.follow) if seals.is_gapless else AuditTable(connection),
        seals=seals,
        signing_keys=SigningKeyTable(connection),
        settings=PublishedSettingTable(connection),
    )
