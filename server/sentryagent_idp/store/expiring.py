"""Deletion of expired rows in small batches, shared by the tables of tokens."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Table, delete, select
from sqlalchemy.engine import Connection


def purge(connection: Connection, table: Table, moment: Column[Any], before: datetime, *, limit: int) -> int:
    """Delete at most `limit` rows whose `moment` is earlier than `before`, the earliest first.

    Replicas that purge at the same time delete different rows.
    """
    (key,) = table.primary_key.columns
    past = select(key).where(moment < before).order_by(moment).limit(limit)
    outcome = connection.execute(delete(table).where(key.in_(past.with_for_update(skip_locked=True))))
    return outcome.rowcount
