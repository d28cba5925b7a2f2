"""Strict reading of JSON fields: unknown names and wrong types are refused, nothing is coerced."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class InvalidFieldError(ValueError):
    """A field of a request is invalid; `field` names it, `reason` says what is allowed."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"`{field}` {reason}.")
        self.field = field
        self.reason = reason


def is_number(value: object) -> bool:
    """Whether `value` is a finite number that fits in a float: Python's parser also accepts NaN and 400 digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_text_map(value: object) -> bool:
    """Whether `value` is an object whose values are all strings."""
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def is_text_list(value: object) -> bool:
    """Whether `value` is an array of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


KINDS: Mapping[str, Callable[[object], bool]] = {
    "a string": lambda value: isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    "a number": is_number,
    "a positive integer": lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0,
    "an object": lambda value: isinstance(value, Mapping),
    "an object of strings": is_text_map,
    "an array of strings": is_text_list,
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; the closest match is …` if the name looks like a known one, else an empty string."""
    found = get_close_matches(name, list(known), 1)
    return f"; the closest match is {found[0]}" if found else ""


def require_known(field: str, value: str | None, known: Iterable[str]) -> None:
    """Raise InvalidFieldError for a value other than None that is not among the known ones."""
    if value is not None and value not in known:
        raise InvalidFieldError(field, f"must be one of {', '.join(known)}{nearest(value, known)}")


def require_number(field: str, value: object) -> None:
    """Raise InvalidFieldError for a value that is not a finite number."""
    if not is_number(value):
        raise InvalidFieldError(field, "must be a number")


def read_fields(body: object, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a JSON object, checked against `kinds` (field -> key of `KINDS`); null counts as absent.

    Raises InvalidFieldError for a body that is not an object, an unknown field or a wrong type.
    """
    if not isinstance(body, dict):
        raise InvalidFieldError("body", "must be a JSON object")
    for name, value in body.items():
        if name not in kinds:
            allowed = f"allowed fields are {', '.join(kinds)}{nearest(name, kinds)}" if kinds else "remove it"
            raise InvalidFieldError(name, f"is an unknown field; {allowed}")
        if value is not None and not KINDS[kinds[name]](value):
            raise InvalidFieldError(name, f"must be {kinds[name]}")
    return {name: value for name, value in body.items() if value is not None}
