"""The table of settings that the command line shares with the running provider."""

from typing import Any

from sqlalchemy import Column, Table, Text, bindparam, select, update
from sqlalchemy.engine import Connection

from sentryagent_idp.store.columns import METADATA, Json
from sentryagent_idp.store.expiring import InsertOnce

SETTINGS = Table(
    "facts",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", Json),
)

_INSERT_ONCE = InsertOnce(SETTINGS)
_T = SETTINGS.c
_ONE = select(_T.value).where(_T.name == bindparam("name"))


class PublishedSettingTable:
    """Settings in one transaction (`sentryagent_idp.ports.PublishedSettings`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Any:
        return self._connection.execute(_ONE, {"name": name}).scalar_one_or_none()

    def put(self, name: str, value: Any) -> None:
        if not _INSERT_ONCE(self._connection, {"name": name, "value": value}):
            self._connection.execute(update(SETTINGS).where(_T.name == name).values(value=value))
