"""Text that somebody else wrote: the provider, the network, the event that started the workflow."""

import json
import re

_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*")


def one_line(text: str, limit: int = 300) -> str:
    """Return `text` as one printable line of at most `limit` characters, without anything JWT-shaped.

    Newlines would start a workflow command of the text's own, invisible characters hide one, and a
    provider that echoes a credential must not get it printed.
    """
    visible = "".join(character if character.isprintable() else " " for character in text)
    line = _JWT.sub("***", " ".join(visible.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def shown(value: object, limit: int = 200) -> str:
    """Return a JSON value as one line for a reader: strings as they are, null as "absent"."""
    if value is None:
        return "absent"
    return one_line(value if isinstance(value, str) else json.dumps(value), limit)


def without_legacy_commands(text: str) -> str:
    """Return `text` with `##[` broken up: the runner obeys `##[command]data` anywhere in a line.

    Source: `ActionCommand.TryParse` of actions/runner.
    """
    return text.replace("##[", "# #[")
