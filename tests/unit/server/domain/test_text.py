"""Case-insensitive comparison, and text that is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentryagent_idp.domain.text import ascii_lower, has_bidi, has_unprintable


def test_only_ascii_has_no_case():
    """Only A to Z are lowered: KELVIN SIGN does not become `k` (A12)."""
    assert ascii_lower("\u212aX\u00c9") == "\u212ax\u00c9"


@given(st.text())
def test_lowering_changes_ascii_letters_only(text):
    """Characters other than A to Z do not change."""
    lowered = ascii_lower(text)
    assert [
        a for a, b in zip(text, lowered, strict=True) if a != b and not ("A" <= a <= "Z" and b == a.lower())
    ] == []
    assert not any("A" <= character <= "Z" for character in lowered)


@pytest.mark.parametrize(
    ("text", "is_unprintable"),
    [
        ("a b\u00fc\U0001f469\u200d\U0001f4bb", False),
        ("a\u202eb", False),
        ("a\nb", True),
        ("a\x00b", True),
        ("a\x85b", True),
        ("a\u2028b", True),
        ("a\u2029b", True),
        ("a\ud800b", True),
    ],
)
def test_unprintable(text, is_unprintable):
    """Control characters, line and paragraph separators and unpaired surrogates are unprintable."""
    assert has_unprintable(text) is is_unprintable


def test_unprintable_besides():
    """Tab and newline can be allowed; other control characters cannot."""
    assert not has_unprintable("a\n\tb", besides="\n\t")
    assert has_unprintable("a\n\x00b", besides="\n\t")


@pytest.mark.parametrize("mark", "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
def test_bidi(mark):
    """Every character that changes the text direction is detected."""
    assert has_bidi(f"a{mark}b")
    assert not has_bidi("ab\u05d0")
