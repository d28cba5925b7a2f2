"""Mask secrets as `***` in all output.

Source: actions/runner, Sdk/DTLogging/Logging/SecretMasker.cs and ValueEncoders.cs: no minimum length, ordinal
comparison, overlapping and adjacent hits become one `***`.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable

MASK: Final = "***"
_POWERSHELL_MINIMUM: Final = 6
_QUOTED_MINIMUM: Final = 8


def _base64_from(shift: int) -> Callable[[str], str]:
    """Return an encoder for base64 text in which the secret's first `shift` bytes belong to an earlier group of three."""

    def encode(value: str) -> str:
        data = value.encode()
        return base64.b64encode(data[shift:] if len(data) > shift else data).decode()

    return encode


def _without_quotes(value: str) -> str:
    quoted = len(value) > _QUOTED_MINIMUM and value[0] == value[-1] == '"'
    return value[1:-1] if quoted else ""


def _before_ampersand(value: str) -> str:
    """Return the part that PowerShell colours as one piece: up to `&+`, else up to the last `&`."""
    end = value.find("&+") + 2 if "&+" in value else value.rfind("&") + 1
    return value[:end] if end >= _POWERSHELL_MINIMUM else ""


def _after_ampersand(value: str) -> str:
    """Return the rest; after `&+` PowerShell swallows one character."""
    if "&" not in value:
        return ""
    rest = value[value.find("&+") + 3 :] if "&+" in value else value[value.rfind("&") + 1 :]
    return rest if len(rest) >= _POWERSHELL_MINIMUM else ""


ENCODERS: Final[tuple[Callable[[str], str], ...]] = (
    _base64_from(0),
    _base64_from(1),
    _base64_from(2),
    lambda value: value.replace('"', '\\"'),
    lambda value: value.replace("'", "''"),
    lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    lambda value: quote(value, safe=""),
    lambda value: escape(value, {'"': "&quot;", "'": "&apos;"}),
    _without_quotes,
    _before_ampersand,
    _after_ampersand,
)


class SecretMasker:
    """The secrets known so far. A secret is masked only in output shown after it was added."""

    def __init__(self) -> None:
        self._forms: set[str] = set()

    def add(self, secret: str) -> None:
        """Mask the whole value, and each of its lines without surrounding spaces, in every encoding."""
        for value in {secret, *(line.strip() for line in re.split(r"[\r\n]", secret))}:
            if value.strip():
                self._forms |= {value, *(encode(value) for encode in ENCODERS)} - {""}

    def mask(self, text: str) -> str:
        """Return `text` with every hit masked; hits that overlap or touch become one."""
        shown: list[str] = []
        end = 0
        for start, stop in self._hits(text):
            shown += [text[end:start], MASK]
            end = stop
        return "".join([*shown, text[end:]])

    def _hits(self, text: str) -> list[tuple[int, int]]:
        spans = sorted(
            # A lookahead consumes nothing, so overlapping hits of one form are found, too.
            (found.start(), found.start() + len(form))
            for form in self._forms
            if form in text
            for found in re.finditer(f"(?={re.escape(form)})", text)
        )
        merged: list[tuple[int, int]] = []
        for start, stop in spans:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((start, stop))
        return merged
