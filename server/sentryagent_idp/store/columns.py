"""Column types for the domain's values: the same text and numbers on SQLite and PostgreSQL."""

import json
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import BigInteger, Dialect, Enum, MetaData, String, Text
from sqlalchemy.types import TypeDecorator

from sentryagent_idp.domain.audit_chain import EPOCH, microseconds
from sentryagent_idp.domain.service import ServiceGrant
from sentryagent_idp.jose import strict_json

Word = TypeVar("Word", bound=StrEnum)

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """A time in whole microseconds since the epoch, so that records of the same second keep their order."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return the stored number."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return the time in UTC."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


class Id(TypeDecorator[UUID]):
    """A UUID in its text form of 36 characters (RFC 9562, 4)."""

    impl = String(36)
    cache_ok = True

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return the stored text."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> UUID | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return the UUID."""
        return None if value is None else UUID(value)


class Json(TypeDecorator[Any]):
    """A JSON value as text; characters that PostgreSQL cannot store in text, such as NUL, are escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Return the stored text."""
        return None if value is None else strict_json.write(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """Return the JSON value."""
        return None if value is None else json.loads(value)


class Words(Json):
    """A tuple of strings as a JSON array."""

    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...] | None:
        """Return the tuple."""
        return None if value is None else tuple(super().process_result_value(value, dialect))


class WordLists(Json):
    """A map of names to tuples of strings as a JSON object of arrays."""

    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, tuple[str, ...]] | None:
        """Return the map."""
        lists = super().process_result_value(value, dialect)
        return None if lists is None else {name: tuple(words) for name, words in lists.items()}


class Grants(Json):
    """The scopes that a policy grants at services, as a JSON array of objects."""

    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[ServiceGrant, ...]:
        """Return the grants, without parsing JSON if there are none: most policies have none."""
        if value == "[]":
            return ()
        found = super().process_result_value(value, dialect)
        return tuple(ServiceGrant(grant["service"], tuple(grant["scopes"])) for grant in found)


def word_of(kind: type[Word]) -> Enum:
    """Return the type of a column that holds a value of `kind`; constraints are in the migrations."""
    return Enum(
        kind, native_enum=False, length=32, values_callable=lambda words: [word.value for word in words]
    )
