"""Pagination: the total number of rows, and the rows of one page."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, func, select
from sqlalchemy.engine import Connection, Row

from sentryagent_idp.domain.text import ascii_lower


def equal(table: Table, wanted: Mapping[str, Any], *, case_folded: str = "") -> Sequence[ColumnElement[bool]]:
    """Return conditions that columns equal the filter's values that are set; `case_folded` is compared without case."""
    values = {name: value for name, value in wanted.items() if value is not None}
    if case_folded in values:
        values[f"{case_folded}_key"] = ascii_lower(values.pop(case_folded))
    return [table.c[name] == value for name, value in values.items()]


def fetch_page(
    connection: Connection,
    table: Table,
    conditions: Sequence[ColumnElement[bool]],
    order: Sequence[ColumnElement[Any]],
    *,
    page: int,
    limit: int,
) -> tuple[int, Sequence[Row[Any]]]:
    """Return the number of rows that match `conditions`, and the rows of one page in `order`.

    The page's keys are selected first, so that a deep page walks an index and not the rows themselves (B24).
    """
    total = connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()
    offset = (page - 1) * limit
    if offset >= total:
        return total, []
    (key,) = table.primary_key.columns
    keys = select(key).where(*conditions).order_by(*order).limit(limit).offset(offset)
    return total, connection.execute(select(table).where(key.in_(keys)).order_by(*order)).all()
