"""The description of an operation in `/openapi.json`, as the decorator of its view."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import Flask
from pydantic import BaseModel

from sentryagent_idp.errors import ServiceError

View = TypeVar("View", bound=Callable[..., Any])
Schema = Mapping[str, Any]
Refusal = type[ServiceError]

ID: Schema = {"type": "string", "format": "uuid"}
TEXT: Schema = {"type": "string"}
TIME: Schema = {"type": "string", "format": "date-time"}
PAGING: Mapping[str, Schema] = {
    "page": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 1},
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
}
EXAMPLE_AGENT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@dataclass(frozen=True, slots=True)
class Description:
    """What a view's route, guard and docstring do not say; the refusals that follow from these are left to `openapi`.

    `response` holds the types of the response's body (TypedDicts or models), the most usual one first.
    """

    response: Sequence[type] = ()
    statuses: Sequence[int] = (200,)
    media_type: str = "application/json"
    body: type[BaseModel] | None = None
    body_is_optional: bool = False
    form: type[BaseModel] | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    headers: Sequence[str] = ()
    response_headers: Sequence[str] = ()
    refusals: Sequence[Refusal] = ()
    credentials: Sequence[str] = ()
    needs_database: bool = True
    example: Mapping[str, Any] | None = None

    def __call__(self, view: View) -> View:
        """Describe the view."""
        view.description = self  # type: ignore[attr-defined]  # read by `description_of`
        return view


def description_of(app: Flask, endpoint: str) -> Description:
    """The description of an endpoint; raises `AttributeError` if its view has none."""
    view: Any = app.view_functions[endpoint]
    found: Description = view.description
    return found
