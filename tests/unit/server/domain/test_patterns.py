"""Wildcards: examples, comparison with a reference matcher, and adversarial patterns."""

import random
import re
import time
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentryagent_idp.domain.patterns import is_exact, matches

TABLE = [
    # pattern, text, whether the pattern matches
    ("main", "main", True),
    ("main", "Main", False),
    ("main", "main\n", False),
    ("main", "", False),
    ("", "", True),
    ("*", "", True),
    ("*", "a", True),
    ("*", "a/b", False),
    ("*", "\n", True),
    ("**", "", True),
    ("**", "a/b\n/c", True),
    ("***", "a/b", True),
    ("****", "a/b", True),
    ("a*", "a", True),
    ("a*c", "abc", True),
    ("a*c", "abcd", False),
    ("a*c", "a/c", False),
    ("a**c", "a/b/c", True),
    ("*/*", "a/b", True),
    ("*/*", "a/b/c", False),
    ("**/c", "a/b/c", True),
    ("**/c", "c", False),
    ("a*b*c", "abxbc", True),
    ("*a", "aa", True),
    ("release/*", "release/1", True),
    ("release/*", "releases/1", False),
    ("release/**-rc", "release/1/2-rc", True),
    # Everything else is literal (A4): no character classes, no `?`, no alternation, no escapes.
    ("a.c", "abc", False),
    ("a?", "ab", False),
    ("[ab]*", "a", False),
    ("a|b*", "a", False),
    ("(a)*", "(a)b", True),
    ("\\*", "\\x", True),
    ("^a$*", "^a$", True),
    ("\u00fc*", "\u00fcber", True),
    ("\U0001f600*", "\U0001f600x", True),
]


@pytest.mark.parametrize(("pattern", "text", "expected"), TABLE)
def test_matches(pattern, text, expected):
    """A pattern matches exactly the texts that its author expects."""
    assert matches(pattern, text) is expected


def reference(pattern, text):
    """The definition of matching as a plain recursion over both strings."""

    @cache
    def covers(at, position):
        if at == len(pattern):
            return position == len(text)
        if pattern[at] != "*":
            return text[position : position + 1] == pattern[at] and covers(at + 1, position + 1)
        crosses = pattern[at : at + 2] == "**"
        after = at + 2 if crosses else at + 1
        if covers(after, position):
            return True
        may_take = position < len(text) and (crosses or text[position] != "/")
        return may_take and covers(at, position + 1)

    return covers(0, 0)


@given(st.text("a/*", max_size=8), st.text("a/b", max_size=10))
@example("a*/**a", "a//a")
@example("***/*", "/")
def test_agrees_with_the_definition(pattern, text):
    """Two independent matchers agree on every pair."""
    assert matches(pattern, text) is reference(pattern, text)


@given(st.text(), st.text())
def test_agrees_on_any_characters(pattern, text):
    """Only `*` and `/` are special, whatever the other characters are."""
    assert matches(pattern, text) is reference(pattern, text)
    assert matches(f"{pattern}**", pattern.replace("*", "") + text) is reference(
        f"{pattern}**", pattern.replace("*", "") + text
    )


PAIRS_PER_EXAMPLE = 1000
TEXTS_PER_PATTERN = 50


def as_expression(pattern):
    """The pattern as a regular expression, which is safe here because the test's texts are short."""
    wildcards = {"*": "[^/]*", "**": ".*"}
    pieces = re.split(r"(\*+)", pattern)
    return re.compile("".join(wildcards.get(it[:2], re.escape(it)) for it in pieces), re.DOTALL)


def test_agrees_with_regular_expressions():
    """Random patterns agree with regular expressions on 100,000 pairs, or a million with `make property`."""
    chance = random.Random(4096)
    pairs = settings().max_examples * PAIRS_PER_EXAMPLE
    matched = 0
    for _ in range(pairs // TEXTS_PER_PATTERN):
        pattern = "".join(chance.choices("ab/.|\n*", (4, 4, 3, 1, 1, 1, 6), k=chance.randrange(9)))
        expression = as_expression(pattern)
        for _ in range(TEXTS_PER_PATTERN):
            text = _text_for(pattern, chance)
            expected = expression.fullmatch(text) is not None
            assert matches(pattern, text) is expected, (pattern, text)
            matched += expected
    assert 0.2 < matched / pairs < 0.8, "a comparison in which one answer is rare shows little"


def _text_for(pattern, chance):
    """Make a text that the pattern may match: fill in each star, and often change, add or remove a character."""
    text = [chance.choice(("", "a", "b/", "ab", "/")) if it == "*" else it for it in pattern]
    if text and chance.random() < 0.4:
        text[chance.randrange(len(text))] = chance.choice(("", "/", "a", "b", "\n"))
    return "".join(text)


def test_is_exact():
    """A pattern without a star is exact."""
    assert is_exact("main?[x]")
    assert not is_exact("ma*n")


ADVERSARIES = [
    "a*" * 127 + "b",
    "**a" * 85 + "b",
    "*a/**" * 51 + "b",
    "*" + "*".join(map(chr, range(0x100, 0x17E))),
]


@pytest.mark.parametrize("pattern", ADVERSARIES)
def test_no_text_is_slow(pattern):
    """Patterns that a backtracking matcher would never finish are matched at once."""
    texts = ["a/" * 5_000, "a" * 10_000, pattern.replace("*", "") * 50]
    started = time.process_time()
    assert not any(matches(pattern, f"{text}!") for text in texts)
    assert time.process_time() - started < 2
