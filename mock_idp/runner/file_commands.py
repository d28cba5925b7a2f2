"""The files behind GITHUB_OUTPUT, GITHUB_ENV and GITHUB_STATE: their grammar, with the runner's own error texts.

Source: actions/runner, Runner.Worker/FileCommandManager.cs (as it behaves on Linux).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SUMMARY_BYTES: Final = 1024 * 1024


class FileCommandError(ValueError):
    """A line that is neither `key=value` nor a well-formed heredoc. The pairs before it still count."""


def parse_pairs(content: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a file in order: `key=value`, or `key<<DELIMITER`, lines, `DELIMITER`. Nothing is trimmed.

    Raises FileCommandError when it reaches an invalid line.
    """
    position = 0
    while position < len(content):
        line, position, _ = _line(content, position)
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if equals >= 0 and (heredoc < 0 or equals < heredoc):
            key, value = line[:equals], line[equals + 1 :]
        elif heredoc >= 0:
            key, delimiter = line[:heredoc], line[heredoc + 2 :]
            if not (key and delimiter):
                raise FileCommandError(
                    f"Invalid format '{line}'. Name must not be empty and delimiter must not be empty"
                )
            value, position = _heredoc(content, position, delimiter)
        else:
            raise FileCommandError(f"Invalid format '{line}'")
        if not key:
            raise FileCommandError(f"Invalid format '{line}'. Name must not be empty")
        yield key, value


def _line(content: str, position: int) -> tuple[str, int, bool]:
    """Return the line at `position`, the start of the next line, and whether it ended with a newline."""
    end = content.find("\n", position)
    return (content[position:], len(content), False) if end < 0 else (content[position:end], end + 1, True)


def _heredoc(content: str, position: int, delimiter: str) -> tuple[str, int]:
    lines: list[str] = []
    while position < len(content):
        line, position, ended = _line(content, position)
        if line == delimiter:
            return "\n".join(lines), position
        if not ended:
            raise FileCommandError("Invalid value. EOF marker missing new line.")
        lines.append(line)
    raise FileCommandError(f"Invalid value. Matching delimiter not found '{delimiter}'")
