"""Rules about text that more than one room needs."""

import string
import unicodedata

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def ascii_lower(text: str) -> str:
    """The text with its ASCII letters, and nothing else, in lower case; `_key` columns are compared in this form.

    `str.lower` would make other letters alike, too: KELVIN SIGN becomes `k` (federation-security A12).
    """
    return text.translate(_LOWER)


def has_unprintable(text: str, *, besides: str = "") -> bool:
    """Whether the text has control characters or line separators: they forge lines in logs, and PostgreSQL has no NUL."""
    return any(unicodedata.category(char) in _UNPRINTABLE_CATEGORIES and char not in besides for char in text)


def visible(text: str) -> str:
    """The text as people see it: in one normal form (NFKC), without invisible characters and spaces at the ends."""
    if text.isascii():
        return text.strip()
    shown = (char for char in text if not _is_invisible(char))
    return unicodedata.normalize("NFKC", "".join(shown)).strip()


def _is_invisible(char: str) -> bool:
    """Whether it has no shape of its own: format characters, such as a zero-width space, and variation selectors."""
    return unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f"


def has_bidi(text: str) -> bool:
    """Whether characters reorder what a reviewer sees ("Trojan Source"; federation-security B22)."""
    return not _BIDI.isdisjoint(text)
