"""Unambiguous JSON (RFC 8259, restricted as in RFC 7493, I-JSON).

Python's parser keeps the last of duplicate fields and accepts `NaN`, lone surrogates and any depth; an attacker can
exploit two parsers that disagree about such a text (B10, B11).
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

_MAX_DIGITS = 19
"""The digits of a 64-bit integer; Python needs quadratic time for longer ones."""

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[][{}]', re.DOTALL)
"""Possessive, and accepts a missing end quote: it never backtracks, so its time is linear."""


class StrictJsonError(ValueError):
    """The text is refused: `reason` is a sentence without its full stop, `field` names the invalid field if it is known."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


@dataclass(frozen=True, slots=True)
class _InvalidNumber:
    """Replaces an invalid number until the field that contains it is known."""

    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on nesting, on the total of fields and array items, and on strings; whether floats and NUL are accepted."""

    depth: int = 8
    fields: int = 100
    string_length: int = 16 * 1024
    floats: bool = False
    nul: bool = True


_Flat = dict[str, str | float | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]]
_FLAT = msgspec.json.Decoder(_Flat)


def write(value: Any) -> str:
    """Encode a value as JSON text, in ASCII and without spaces."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # a lone surrogate, which is written as an escape (RFC 8259, 8.2)
        text = ""
    if text and text.isascii():
        return text
    return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def parse(text: bytes | str, limits: Limits) -> Any:
    """Parse a JSON text.

    The caller must limit the size of `text`; the time is linear in it.
    Raises `StrictJsonError`, and nothing else, for every text that is refused.
    """
    flat = _flat(text, limits) if isinstance(text, bytes) else None
    return _value(text, limits) if flat is None else flat


def _flat(text: bytes, limits: Limits) -> _Flat | None:
    """Parse an object of strings and integers without escapes with a fast parser, which reads it in the same way.

    Returns `None` for every other text, and for a text to be refused, for which the slow parser finds the reason. Nearly
    all tokens and bodies have this form, and reading them takes a third less time.
    """
    if b"\\" in text or len(text) > limits.string_length:
        return None
    try:
        fields = _FLAT.decode(text)
    except ValueError:
        return None
    # The parser keeps the last of duplicate fields (B11). Without escapes, each `":` ends a field's name.
    is_unique = len(fields) == text.count(b'":') <= limits.fields
    return fields if is_unique and float not in map(type, fields.values()) else None


def _value(text: bytes | str, limits: Limits) -> Any:
    decoded = _decoded(text)
    _check_depth(decoded, limits.depth)
    try:
        value = _DECODERS[limits.floats].decode(decoded)
    except json.JSONDecodeError as error:
        raise StrictJsonError(f"it is not JSON: {error.msg} at character {error.pos}") from error
    _check_content(value, limits)
    # Only an escape can produce NUL, so no other text needs a search.
    if not limits.nul and "\\u0000" in decoded and _has_nul(value):
        raise StrictJsonError("it has a NUL character")
    return value


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that occurs again, or `None`; in linear time, so that many names are not expensive."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _decoded(text: bytes | str) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJsonError(f"it is not UTF-8: invalid byte at position {error.start}") from error


def _check_depth(text: str, allowed: int) -> None:
    # Checked before parsing: the parser recurses, and its RecursionError depends on the depth of the caller's stack.
    if text.count("{") + text.count("[") <= allowed:
        return
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth > allowed:
            raise StrictJsonError(f"it is nested deeper than {allowed} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # The names are already unescaped, so "\u0061" and "a" are the same field.
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = repeated(name for name, _ in pairs)
        raise StrictJsonError(
            "a field is given more than once", twice if twice and twice.isprintable() else None
        )
    return fields


def _float(digits: str) -> float | _InvalidNumber:
    value = float(digits)
    return _InvalidNumber("a number is too large") if value in {float("inf"), float("-inf")} else value


def _no_float(_digits: str) -> _InvalidNumber:
    return _InvalidNumber("numbers must be integers, without a fraction or an exponent")


def _no_constant(name: str) -> _InvalidNumber:
    return _InvalidNumber(f"{name} is not a JSON value")


def _integer(digits: str) -> int | _InvalidNumber:
    if len(digits.lstrip("-")) > _MAX_DIGITS:
        return _InvalidNumber(f"an integer has more than {_MAX_DIGITS} digits")
    return int(digits)


def _decoder(read_float: Callable[[str], Any]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_object, parse_constant=_no_constant, parse_float=read_float, parse_int=_integer
    )


_DECODERS = {False: _decoder(_no_float), True: _decoder(_float)}
"""By whether floats are accepted; created once, since creating one takes as long as parsing a token."""


def _check_content(value: Any, limits: Limits) -> None:
    count = 0
    waiting: list[tuple[str | None, Any]] = [(None, value)]
    while waiting:
        field, item = waiting.pop()
        if isinstance(item, _InvalidNumber):
            raise StrictJsonError(item.reason, field)
        if isinstance(item, str):
            _check_string(item, limits.string_length, field)
            continue
        children = _children(field, item)
        count += len(children)
        if count > limits.fields:
            raise StrictJsonError(f"it has more than {limits.fields} fields and items")
        for name in item if isinstance(item, dict) else ():
            _check_string(name, limits.string_length, None)
        waiting.extend(children)


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_nul, (*value, *value.values())))
    return (
        any(map(_has_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\x00" in value
    )


def _children(field: str | None, item: Any) -> list[tuple[str | None, Any]]:
    if isinstance(item, dict):
        return [(field or name, child) for name, child in item.items()]
    return [(field, element) for element in item] if isinstance(item, list) else []


def _check_string(text: str, allowed: int, field: str | None) -> None:
    if len(text) > allowed:
        raise StrictJsonError(f"it has a string of more than {allowed} characters", field)
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise StrictJsonError("it has a lone surrogate, which is not a character", field) from error
