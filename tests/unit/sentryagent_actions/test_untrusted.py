"""Handling untrusted text."""

import pytest

from sentryagent_actions.untrusted import one_line, shown, without_legacy_commands


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("two\nlines\r\nand\u2028more", "two lines and more"),
        ("\x1b[31mred", "[31mred"),
        ("right\u202eto left", "right to left"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("token eyJhbGciOi.eyJzdWIi.c2ln here", "token *** here"),
        ("in=eyJhbGciOi.eyJzdWIi.c2ln,eyJhbGciOi.x", "in=***,***"),
        ("xeyJhbGciOi.e", "x***"),
        ("a.b_eyJabcde.", "a.b_***"),
        ("eyJabcd.eyJabcde", "eyJabcd.eyJabcde"),
        ("eyJeyJab.c", "***"),
        ("eyJabcde", "eyJabcde"),
    ],
)
def test_one_line_is_printable(text, line):
    """Newlines, control and invisible characters and tokens are removed."""
    assert one_line(text) == line


@pytest.mark.parametrize("text", ["eyJ" * 3_000_000, "eyJabcde" * 1_000_000, "a." * 500_000, "." * 1_000_000])
def test_a_megabyte_is_one_line_at_once(text):
    """Text of the largest size takes linear time: a search for JWTs from each `eyJ` would be quadratic."""
    assert len(one_line(text)) == 300


def test_one_line_is_cut():
    """A long text is shortened and ends with an ellipsis."""
    assert one_line("x" * 500, 10) == "xxxxxxxxx…"


@pytest.mark.parametrize(
    ("value", "text"),
    [("main", "main"), (None, "absent"), (["a", "b"], '["a", "b"]'), (True, "true"), (7, "7")],
)
def test_json_values_are_shown_as_a_reader_expects(value, text):
    """Strings are shown unquoted, null as "absent", other values as JSON."""
    assert shown(value) == text


def test_legacy_commands_are_broken_up():
    """The runner obeys `##[command]` anywhere in a line, so it must not occur."""
    assert "##[" not in without_legacy_commands("a ##[add-mask]e ###[error]x")
