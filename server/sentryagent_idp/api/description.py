"""The decorator that describes a view: `/openapi.json` is generated from it, and queries are parsed by it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from flask import Flask
from pydantic import BaseModel

from sentryagent_idp.api.fields import UUID_FORM, parse_moment
from sentryagent_idp.errors import ServiceError, choice_reason

View = TypeVar("View", bound=Callable[..., Any])
Refusal = type[ServiceError]

EXAMPLE_AGENT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter: its schema, and `read`, which parses its text or raises `ValueError` with the reason."""

    schema: Mapping[str, Any]
    read: Callable[[str], Any] = str


def integer(least: int, most: int, reason: str, **default: int) -> Parameter:
    """Return a parameter for integers from `least` to `most`; any other value is refused with `reason`."""

    def read(text: str) -> int:
        value = int(text) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else -1
        if not least <= value <= most:
            raise ValueError(reason)
        return value

    return Parameter({"type": "integer", "minimum": least, "maximum": most, **default}, read)


def choice(words: Sequence[str]) -> Parameter:
    """Return a parameter that takes one of `words`."""

    def read(text: str) -> str:
        for word in words:
            if word == text:
                return word
        raise ValueError(choice_reason(words))

    return Parameter({"type": "string", "enum": list(words)}, read)


def _uuid(text: str) -> UUID:
    if not UUID_FORM.fullmatch(text):
        raise ValueError("it must be a UUID")
    return UUID(text)


ID = Parameter({"type": "string", "format": "uuid"}, _uuid)
TEXT = Parameter({"type": "string"})
BOOLEAN = Parameter({"type": "boolean"}, lambda text: choice(("true", "false")).read(text) == "true")
TIME = Parameter({"type": "string", "format": "date-time"}, parse_moment)
PAGING = {
    "page": integer(1, 1_000_000, "it must be a number from 1 to 1000000", default=1),
    "limit": integer(1, 100, "it must be a number from 1 to 100", default=20),
}


@dataclass(frozen=True, slots=True)
class Description:
    """The parts of an operation's description that its route, guard and docstring do not give.

    `response` holds the types of the response body (TypedDicts or models), the most common first. `refusals` holds
    those specific to the operation; `openapi.refusals` adds those that follow from the guard and the other fields.
    """

    response: Sequence[type] = ()
    statuses: Sequence[int] = (200,)
    media_type: str = "application/json"
    body: type[BaseModel] | None = None
    body_is_optional: bool = False
    form: type[BaseModel] | None = None
    query: Mapping[str, Parameter] = field(default_factory=dict)
    headers: Sequence[str] = ()
    response_headers: Sequence[str] = ()
    refusals: Sequence[Refusal] = ()
    credentials: Sequence[str] = ()
    needs_database: bool = True
    example: Mapping[str, Any] | None = None

    def __call__(self, view: View) -> View:
        """Attach the description to the view."""
        view.description = self  # type: ignore[attr-defined]  # read by `description_of`
        return view


def description_of(app: Flask, endpoint: str) -> Description:
    """Return the description of an endpoint; raises `AttributeError` if its view has none."""
    view: Any = app.view_functions[endpoint]
    found: Description = view.description
    return found
