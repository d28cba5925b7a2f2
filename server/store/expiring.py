"""What the tables of tokens have in common: a row is kept until a moment, then deleted in small portions."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection


def insert_once(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Insert a row whose key is new; `False` where it is there, or where somebody was first at this moment.

    The unique key decides, not a look beforehand: of several transactions exactly one inserts.
    """
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
    (key,) = table.primary_key.columns
    statement = insert(table).on_conflict_do_nothing().returning(key)
    return connection.execute(statement, row).first() is not None


def purge(connection: Connection, table: Table, moment: Column[Any], before: datetime, *, limit: int) -> int:
    """Delete at most `limit` rows whose `moment` is earlier than `before`, the earliest first.

    Replicas that purge at the same time take different rows.
    """
    (key,) = table.primary_key.columns
    past = select(key).where(moment < before).order_by(moment).limit(limit)
    outcome = connection.execute(delete(table).where(key.in_(past.with_for_update(skip_locked=True))))
    return outcome.rowcount
