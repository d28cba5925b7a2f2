"""Sanitising text from outside: the provider, the network, the event that started the workflow."""

import json
import re

MAX_TOKEN_LENGTH = 16 * 1024  # characters; later steps pass a token in the environment, whose size is limited
_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_JWT_START = "eyJ"
_SHORTEST_HEADER = 8  # characters


def one_line(text: str, limit: int = 300) -> str:
    """Return `text` as one printable line of at most `limit` characters, without anything JWT-shaped.

    A newline could start a workflow command, invisible characters could hide one, and a credential that the provider
    echoes must not be printed.
    """
    visible = "".join(character if character.isprintable() else " " for character in text)
    line = _WORD.sub(_without_jwt, " ".join(visible.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _without_jwt(word: re.Match[str]) -> str:
    # Not a regular expression: one that finds a JWT would take minutes on a megabyte of `eyJeyJ…`.
    *headers, _ = word[0].split(".")
    position = 0
    for header in headers:
        start = header.find(_JWT_START)
        if 0 <= start <= len(header) - _SHORTEST_HEADER:
            return f"{word[0][: position + start]}***"
        position += len(header) + 1
    return word[0]


def shown(value: object, limit: int = 200) -> str:
    """Return a JSON value as one readable line: a string without quotes, null as "absent"."""
    if value is None:
        return "absent"
    return one_line(value if isinstance(value, str) else json.dumps(value), limit)


def without_legacy_commands(text: str) -> str:
    """Return `text` with `##[` broken up: the runner obeys `##[command]data` anywhere in a line.

    Source: `ActionCommand.TryParse` of actions/runner.
    """
    return text.replace("##[", "# #[")
