"""Wildcards in branch and tag names: `*` and `**`, nothing else.

Neither `fnmatch` (its `*` crosses `/`) nor `re` (its backtracking is exponential, its `$` lets a newline pass) is
used: a policy must mean what its author reads (federation-security A4, R-GLB-1).
"""

import re
from collections.abc import Iterable

_ONE = ord("1")
_TOKEN = re.compile(r"\*+|[^*]", re.DOTALL)


def is_exact(pattern: str) -> bool:
    """Whether the pattern names one branch or tag only."""
    return "*" not in pattern


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern covers the whole text.

    `*` is any run, also an empty one, of characters but `/`; `**` is any run; three and more stars in a row are
    `**`, too. Every other character is itself. Time: len(pattern) * len(text) / 64, whatever the two contain.
    """
    if is_exact(pattern):
        return pattern == text
    # All ways of matching at once: bit i says that the tokens so far can account for exactly text[:i].
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
    # came past (Cameron et al., "Bitwise data parallelism in regular expression matching", 2014: MatchStar).
    return (((reached & run) + run) ^ run) | reached


def _all(length: int) -> int:
    return (1 << length) - 1


def _positions(text: str, characters: Iterable[str]) -> dict[str, int]:
    """For each character the number whose bit i is set where text[i] is that character."""
    digits = {character: bytearray(b"0") * (len(text) + 1) for character in characters}
    for index, character in enumerate(reversed(text), start=1):
        if character in digits:
            digits[character][index] = _ONE
    return {character: int(binary, 2) for character, binary in digits.items()}
