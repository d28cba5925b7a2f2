"""Log lines for a terminal, with colours for what the run's page on GitHub highlights. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARK: Final = re.compile(r"##\[(group|endgroup|error|warning|notice|debug|command)\](.*)", re.DOTALL)
_RESET: Final = "\x1b[0m"
_STYLES: Final[Mapping[str, tuple[str, str]]] = {
    "group": ("\x1b[1m", "▶ "),
    "error": ("\x1b[31m", "error: "),
    "warning": ("\x1b[33m", "warning: "),
    "notice": ("\x1b[34m", "notice: "),
    "debug": ("\x1b[35m", "debug: "),
    "command": ("\x1b[36m", ""),
}


def is_wanted(environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether to use colours: on a terminal that can show them, unless NO_COLOR is set (no-color.org)."""
    return is_terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def styled(line: str) -> list[str]:
    """Return the lines to show for one log line: the runner's marks become colours, the end of a group is dropped."""
    found = _MARK.fullmatch(line)
    if not found:
        return [line]
    if found[1] == "endgroup":
        return []
    colour, label = _STYLES[found[1]]
    return [f"{colour}{label}{found[2]}{_RESET}"]
