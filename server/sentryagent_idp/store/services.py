"""The table of services."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, Integer, Table, Text, UniqueConstraint, delete, insert, select, update
from sqlalchemy.engine import Connection, Row

from sentryagent_idp.domain.records import Page
from sentryagent_idp.domain.service import Service, ServiceFilter, ServiceScope
from sentryagent_idp.errors import ServiceAlreadyExists
from sentryagent_idp.store.columns import METADATA, Id, Json, Moment
from sentryagent_idp.store.failures import unique
from sentryagent_idp.store.paging import equal, fetch_page

SERVICES = Table(
    "services",
    METADATA,
    Column("service_id", Id, primary_key=True),
    Column("identifier", Text, nullable=False),
    Column("description", Text),
    Column("scopes", Json, nullable=False),
    Column("max_ttl", Integer),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("identifier"),
    Index(None, "created_at", "service_id"),
)

_T = SERVICES.c


class ServiceTable:
    """Services in one transaction (`sentryagent_idp.ports.Services`)."""

    def __init__(self, connection: Connection, *, lock: bool) -> None:
        self._connection = connection
        self._lock = lock

    def get(self, service_id: UUID) -> Service | None:
        by_id = select(SERVICES).where(_T.service_id == service_id)
        row = self._connection.execute(by_id.with_for_update() if self._lock else by_id).one_or_none()
        return None if row is None else _service(row)

    def named(self, identifiers: Collection[str]) -> Sequence[Service]:
        if not identifiers:
            return []
        # In a fixed order, so that two transactions cannot deadlock.
        found = select(SERVICES).where(_T.identifier.in_(identifiers)).order_by(_T.identifier)
        rows = self._connection.execute(found.with_for_update(read=True) if self._lock else found)
        return [_service(row) for row in rows]

    def identifiers(self) -> Sequence[str]:
        return self._connection.scalars(select(_T.identifier).order_by(_T.identifier)).all()

    def max_ttls(self, identifiers: Collection[str]) -> Mapping[str, int | None]:
        if not identifiers:
            return {}
        found = select(_T.identifier, _T.max_ttl).where(_T.identifier.in_(identifiers))
        return {row.identifier: row.max_ttl for row in self._connection.execute(found)}

    def page(self, wanted: ServiceFilter, *, page: int, limit: int) -> Page[Service]:
        order = (_T.created_at, _T.service_id)
        total, rows = fetch_page(
            self._connection, SERVICES, equal(SERVICES, asdict(wanted)), order, page=page, limit=limit
        )
        return Page([_service(row) for row in rows], total)

    def add(self, service: Service) -> None:
        refusal = ServiceAlreadyExists("A service has this identifier already; change that one.")
        try:
            with unique(self._connection, "identifier", refusal):
                self._connection.execute(insert(SERVICES), asdict(service))
        except ServiceAlreadyExists:
            # No row if it was deleted in the meantime.
            for service_id in self._connection.scalars(
                select(_T.service_id).where(_T.identifier == service.identifier)
            ):
                refusal.details["serviceId"] = str(service_id)
            raise

    def replace(self, service: Service) -> None:
        self._connection.execute(
            update(SERVICES).where(_T.service_id == service.service_id).values(asdict(service))
        )

    def delete(self, service_id: UUID) -> None:
        self._connection.execute(delete(SERVICES).where(_T.service_id == service_id))


def _service(row: Row[Any]) -> Service:
    values = row._asdict()
    values["scopes"] = tuple(ServiceScope(**scope) for scope in values["scopes"])
    return Service(**values)
