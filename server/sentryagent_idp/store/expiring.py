"""What the tables of tokens have in common: a row is kept until a moment, then deleted in small portions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection


class InsertOnce:
    """Inserts a row into `table` where its primary key is new.

    The unique key decides, not a look beforehand: of several transactions at the same moment exactly one inserts.
    """

    def __init__(self, table: Table) -> None:
        (key,) = table.primary_key.columns
        self._statements = {
            name: insert(table).on_conflict_do_nothing().returning(key)
            for name, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
        }

    def __call__(self, connection: Connection, row: Mapping[str, Any]) -> bool:
        """Whether the row was inserted."""
        return connection.execute(self._statements[connection.dialect.name], row).first() is not None


def purge(connection: Connection, table: Table, moment: Column[Any], before: datetime, *, limit: int) -> int:
    """Delete at most `limit` rows whose `moment` is earlier than `before`, the earliest first.

    Replicas that purge at the same time take different rows.
    """
    (key,) = table.primary_key.columns
    past = select(key).where(moment < before).order_by(moment).limit(limit)
    outcome = connection.execute(delete(table).where(key.in_(past.with_for_update(skip_locked=True))))
    return outcome.rowcount
