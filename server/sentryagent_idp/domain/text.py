"""Rules about text that several modules share."""

import string
import unicodedata

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def ascii_lower(text: str) -> str:
    """The text with only its ASCII letters in lower case; `_key` columns are compared in this form.

    `str.lower` would also make other letters equal: KELVIN SIGN becomes `k` (A12).
    """
    return text.translate(_LOWER)


def has_unprintable(text: str, *, besides: str = "") -> bool:
    """Whether the text has control characters or line separators: they forge log lines, and PostgreSQL refuses NUL."""
    return any(unicodedata.category(char) in _UNPRINTABLE_CATEGORIES and char not in besides for char in text)


def visible(text: str) -> str:
    """The text as people see it: in normal form NFKC, without invisible characters and spaces at the ends."""
    if text.isascii():
        return text.strip()
    shown = (char for char in text if not _is_invisible(char))
    return unicodedata.normalize("NFKC", "".join(shown)).strip()


def _is_invisible(char: str) -> bool:
    """Whether the character is a format character, such as a zero-width space, or a variation selector."""
    return unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f"


def has_bidi(text: str) -> bool:
    """Whether the text has characters that reorder what a reviewer sees ("Trojan Source"; B22)."""
    return not _BIDI.isdisjoint(text)
