"""The table of settings that the command line shares with the running provider."""

from typing import Any

from sqlalchemy import Column, Table, Text, select, update
from sqlalchemy.engine import Connection

from sentryagent_idp.jose import strict_json
from sentryagent_idp.store.columns import METADATA, Json
from sentryagent_idp.store.driver import InsertMany

SETTINGS = Table(
    "facts",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", Json),
)

_INSERT = InsertMany(SETTINGS, ("name", "value"))
_T = SETTINGS.c


class PublishedSettingTable:
    """Settings in one transaction (`sentryagent_idp.ports.PublishedSettings`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Any:
        return self._connection.scalar(select(_T.value).where(_T.name == name))

    def put(self, name: str, value: Any) -> None:
        if not _INSERT.new(self._connection, [(name, strict_json.write(value))]):
            self._connection.execute(update(SETTINGS).where(_T.name == name).values(value=value))
