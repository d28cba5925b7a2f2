"""The table of admin clients and of the clients of services, with their secrets as hashes."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Column, Index, Table, Text, func, insert, select, update
from sqlalchemy.engine import Connection

from sentryagent_idp.domain.client import AdminClient
from sentryagent_idp.store.columns import METADATA, Moment, Words

ADMIN_CLIENTS = Table(
    "admin_clients",
    METADATA,
    Column("client_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scopes", Words, nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
    Column("service", Text),
    Index(None, "service"),
)

_T = ADMIN_CLIENTS.c


class AdminClientTable:
    """Admin clients in one transaction (`sentryagent_idp.ports.AdminClients`)."""

    def __init__(self, connection: Connection, *, lock: bool) -> None:
        self._connection = connection
        self._lock = lock

    def get(self, client_id: str) -> AdminClient | None:
        by_id = select(ADMIN_CLIENTS).where(_T.client_id == client_id)
        row = self._connection.execute(by_id.with_for_update() if self._lock else by_id).one_or_none()
        return None if row is None else AdminClient(**row._asdict())

    def all(self) -> Sequence[AdminClient]:
        oldest_first = select(ADMIN_CLIENTS).order_by(_T.created_at, _T.client_id)
        return [AdminClient(**row._asdict()) for row in self._connection.execute(oldest_first)]

    def bound_to(self, service: str) -> int:
        live = (_T.service == service, _T.revoked_at.is_(None))
        return self._connection.execute(
            select(func.count()).select_from(ADMIN_CLIENTS).where(*live)
        ).scalar_one()

    def add(self, client: AdminClient) -> None:
        self._connection.execute(insert(ADMIN_CLIENTS), asdict(client))

    def replace(self, client: AdminClient) -> None:
        self._connection.execute(
            update(ADMIN_CLIENTS).where(_T.client_id == client.client_id).values(asdict(client))
        )
