"""How the domain's values lie in columns: the same text and numbers on SQLite and on PostgreSQL."""

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
    """A time as whole microseconds since the epoch, so that two records of one second keep their order."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
        """The number that is stored."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """The time in UTC."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


class Id(TypeDecorator[UUID]):
    """A UUID in its text form of 36 characters (RFC 9562, 4)."""

    impl = String(36)
    cache_ok = True

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """The text that is stored."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> UUID | None:  # noqa: ARG002 - SQLAlchemy's signature
        """The UUID."""
        return None if value is None else UUID(value)


class Json(TypeDecorator[Any]):
    """A JSON value as text; what PostgreSQL cannot hold in text, such as NUL, is escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """The text that is stored."""
        return None if value is None else strict_json.write(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """The JSON value."""
        return None if value is None else json.loads(value)


class Words(Json):
    """A tuple of strings as a JSON list."""

    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...] | None:
        """The tuple."""
        return None if value is None else tuple(super().process_result_value(value, dialect))


class WordLists(Json):
    """A map of tuples of strings as a JSON object of lists."""

    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, tuple[str, ...]] | None:
        """The map."""
        lists = super().process_result_value(value, dialect)
        return None if lists is None else {name: tuple(words) for name, words in lists.items()}


class Grants(Json):
    """What a policy grants at services, as a JSON list of objects."""

    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[ServiceGrant, ...]:
        """The grants; most policies have none."""
        if value == "[]":
            return ()
        found = super().process_result_value(value, dialect)
        return tuple(ServiceGrant(grant["service"], tuple(grant["scopes"])) for grant in found)


def word_of(kind: type[Word]) -> Enum:
    """The type of a column that holds one of the values of `kind`; the migrations check the words."""
    return Enum(
        kind, native_enum=False, length=32, values_callable=lambda words: [word.value for word in words]
    )
