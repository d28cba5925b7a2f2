"""Wildcards in branch and tag names: `*` and `**`, nothing else.

Neither `fnmatch` (its `*` crosses `/`) nor `re` (its backtracking is exponential, its `$` lets a newline pass) is
used: a policy must mean what its author reads (A4).
"""

import re
from collections.abc import Iterable

_TOKEN = re.compile(r"\*+|[^*]", re.DOTALL)


def is_exact(pattern: str) -> bool:
    """Whether the pattern names one branch or tag only."""
    return "*" not in pattern


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern covers the whole text.

    `*` matches any number of characters except `/`, also none; `**` matches any number of any characters, and so do
    three or more stars in a row. Every other character matches itself. Time: len(pattern) * len(text) / 64, whatever
    the two contain; about half a millisecond for the longest claim (4096 characters) and pattern (255 bytes).
    """
    if is_exact(pattern):
        return pattern == text
    # Tracks all ways of matching at once: bit i is set if the tokens so far can match exactly text[:i].
    positions = _positions(text, {*pattern, "/"})
    within_component = ~positions["/"] & _all(len(text))
    reached = 1
    for token in _TOKEN.findall(pattern):
        if token == "*":
            reached = _star(reached, within_component)
        elif token.startswith("*"):
            reached = -(reached & -reached) & _all(len(text) + 1)
        else:
            reached = (reached & positions[token]) << 1
    return bool(reached >> len(text) & 1)


def _star(reached: int, run: int) -> int:
    # The addition carries each mark to the end of its run of allowed characters, and the XOR shows where it
    # passed (Cameron et al., "Bitwise data parallelism in regular expression matching", 2014: MatchStar).
    return (((reached & run) + run) ^ run) | reached


def _all(length: int) -> int:
    return (1 << length) - 1


def _positions(text: str, characters: Iterable[str]) -> dict[str, int]:
    """For each character, a number whose bit i is set if text[i] is that character."""
    octets = {character: bytearray(len(text) // 8 + 1) for character in characters}
    for shift in range(8):
        for index, character in enumerate(text[shift::8]):
            if character in octets:
                octets[character][index] |= 1 << shift
    return {character: int.from_bytes(bits, "little") for character, bits in octets.items()}
