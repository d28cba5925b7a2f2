"""Environment variables: corrections of misspelt names, and secrets that are read from files."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

FILE = "_FILE"
"""The suffix of a variable that names the file of a secret, as in Docker's official images."""

_MAX_SECRET_LENGTH = 64 * 1024
_SHORT = 4
_FAR = 99
_SERVICE_LINK = re.compile(
    r"\w+_SERVICE_(HOST|PORT(_\w+)?)=.*|\w+_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*|=(tcp|udp|sctp)://.*)"
)
"""Variables that Kubernetes sets in each container, named after a Service:
https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables."""


class UnreadableSecret(Exception):
    """The file of a secret cannot be read; the message says why."""


def secret(path: str) -> str:
    """Read a secret from a file, without line breaks at the end or a byte order mark at the beginning.

    Raises `UnreadableSecret`, also for an empty file.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            text = file.read(_MAX_SECRET_LENGTH + 1)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UnreadableSecret(f"the file {path} cannot be read ({cause})") from error
    if len(text) > _MAX_SECRET_LENGTH:
        raise UnreadableSecret(f"the file {path} is too long to be a secret")
    found = text.rstrip("\r\n")
    if not found:
        raise UnreadableSecret(f"the file {path} is empty")
    return found


def unknown(environ: Mapping[str, str], prefix: str, known: Collection[str]) -> Iterator[str]:
    """Yield the unknown variables with the prefix, sorted, except those that Kubernetes sets."""
    for name, value in sorted(environ.items()):
        if name.startswith(prefix) and name not in known and not _SERVICE_LINK.fullmatch(f"{name}={value}"):
            yield name


def closest(name: str, prefix: str, settings: Collection[str]) -> list[str]:
    """The settings that a name may misspell (one or two letters, a plural, a missing word); none for other names."""
    found = name.removeprefix(prefix).upper()
    ranked = sorted((_mistakes(found, it.removeprefix(prefix)), it) for it in settings)
    nearest = ranked[0][0] if ranked else _FAR
    return [it for mistakes, it in ranked if mistakes == nearest < _FAR]


def _mistakes(found: str, wanted: str) -> int:
    if _singular(found) == _singular(wanted):
        return 0
    words = wanted.split("_")
    shorter = ["_".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    if len(words) > 1 and found in shorter:
        return 1
    letters = _distance(found, wanted)
    # In a name of four letters, two other letters make an unrelated word.
    return letters if letters <= (1 if len(wanted) <= _SHORT else 2) else _FAR


def _singular(name: str) -> str:
    return "_".join(re.sub(r"IES$", "Y", word).removesuffix("S") for word in name.split("_"))


def _distance(left: str, right: str) -> int:
    """The number of missing, extra, wrong or swapped adjacent letters (optimal string alignment distance)."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left, 1):
        before, above, row = row, before, [i]
        for j, other in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and (letter, left[i - 2]) == (right[j - 2], other):
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
