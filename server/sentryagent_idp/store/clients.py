"""The table of admin clients and of services' clients, with hashed secrets."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Column, ColumnElement, Index, Table, Text, func, insert, or_, select, update
from sqlalchemy.engine import Connection

from sentryagent_idp.domain.client import Client
from sentryagent_idp.domain.trust_policy import USE_IS_RECORDED_EVERY
from sentryagent_idp.store.columns import METADATA, Moment, Words

CLIENTS = Table(
    "admin_clients",
    METADATA,
    Column("client_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scopes", Words, nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
    Column("service", Text),
    Column("expires_at", Moment),
    Column("old_secret_hash", Text),
    Column("old_secret_until", Moment),
    Column("last_used_at", Moment),
    Index(None, "service"),
)

_T = CLIENTS.c


def _live(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return _T.revoked_at.is_(None), or_(_T.expires_at.is_(None), _T.expires_at > now)


class ClientTable:
    """Clients in one transaction (`sentryagent_idp.ports.Clients`)."""

    def __init__(self, connection: Connection, *, lock: bool) -> None:
        self._connection = connection
        self._lock = lock

    def get(self, client_id: str) -> Client | None:
        by_id = select(CLIENTS).where(_T.client_id == client_id)
        row = self._connection.execute(by_id.with_for_update() if self._lock else by_id).one_or_none()
        return None if row is None else Client(**row._asdict())

    def all(self) -> Sequence[Client]:
        oldest_first = select(CLIENTS).order_by(_T.created_at, _T.client_id)
        return [Client(**row._asdict()) for row in self._connection.execute(oldest_first)]

    def bound_to(self, service: str, now: datetime) -> int:
        return self._count(_T.service == service, *_live(now))

    def named(self, name: str, now: datetime) -> int:
        return self._count(_T.name == name, *_live(now))

    def mark_used(self, client_id: str, now: datetime) -> None:
        is_due = or_(_T.last_used_at.is_(None), _T.last_used_at <= now - USE_IS_RECORDED_EVERY)
        self._connection.execute(
            update(CLIENTS).where(_T.client_id == client_id, is_due).values(last_used_at=now)
        )

    def add(self, client: Client) -> None:
        self._connection.execute(insert(CLIENTS), asdict(client))

    def replace(self, client: Client) -> None:
        self._connection.execute(
            update(CLIENTS).where(_T.client_id == client.client_id).values(asdict(client))
        )

    def _count(self, *conditions: ColumnElement[bool]) -> int:
        counting = select(func.count()).select_from(CLIENTS).where(*conditions)
        return self._connection.execute(counting).scalar_one()
