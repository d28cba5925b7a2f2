import base64
import json
from urllib.parse import quote

import pytest

from mock_idp.runner.masks import SecretMasker

SECRET = "p\"a's\\s <word>&more"


def _mask(secret, text):
    masker = SecretMasker()
    masker.add(secret)
    return masker.mask(text)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(SECRET.encode()[1:]).decode(),
        base64.b64encode(SECRET.encode()[2:]).decode(),
        SECRET.replace('"', '\\"'),
        SECRET.replace("'", "''"),
        json.dumps(SECRET)[1:-1],
        quote(SECRET, safe=""),
        "p&quot;a&apos;s\\s &lt;word&gt;&amp;more",
    ],
)
def test_every_encoding_of_a_secret_is_masked(form):
    """The encodings that logs commonly apply to a value are masked too."""
    assert _mask(SECRET, f"<{form}>") == "<***>"


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        # There is no minimum length.
        ("a", "banana", "b***n***n***"),
        # Overlapping or adjacent matches become one mask.
        ("aba", "xababax", "x***x"),
        ("ab", "xababx", "x***x"),
        # The comparison is ordinal and case-sensitive.
        ("Secret", "secret Secret", "secret ***"),
        # An empty or blank secret masks nothing.
        ("", "text", "text"),
        ("  ", "a  b", "a  b"),
        # A long value is also masked without its surrounding quotes.
        ('"quoted value"', "a quoted value b", "a *** b"),
        ('"short"', "a short b", "a short b"),
        # PowerShell prints the parts around an ampersand separately.
        ("secretpart1&secretpart2&secretpart3", "x secretpart3 y", "x *** y"),
        ("secretpart1&secretpart2&secretpart3", "x secretpart1&secretpart2& y", "x *** y"),
        ("secretpart1&+secretpart2", "x ecretpart2 y", "x *** y"),
        ("secretpart1&+secretpart2", "x secretpart1&+ y", "x *** y"),
        ("abc&def", "abc def", "abc def"),
        # A part of six characters is masked, a part of five is not.
        ("abcde&12345", "abcde& 12345", "*** 12345"),
        ("abcd&123456", "abcd& 123456", "abcd& ***"),
        ("abcd&+x12345", "abcd&+ 12345", "*** 12345"),
        ("abc&+x123456", "abc&+ 123456", "abc&+ ***"),
    ],
)
def test_masking_follows_the_runners_rules(secret, text, shown):
    """Each row is a rule of the runner's masker."""
    assert _mask(secret, text) == shown


def test_every_line_of_a_secret_is_a_secret():
    """A PEM key is masked as a whole and line by line, without the spaces around a line."""
    secret = "-----BEGIN\r\n  line two\n\nline three\n"

    assert _mask(secret, "line two, line three, -----BEGIN") == "***, ***, ***"
    assert _mask(secret, f"({secret})") == "(***)"


def test_a_line_of_blanks_in_a_secret_masks_nothing():
    """A blank line masks nothing, or every space in the log would vanish."""
    assert _mask("one\n \ntwo", "a b") == "a b"


def test_two_secrets_that_touch_become_one():
    """Adjacent secrets become one mask, so the log does not show how many there are."""
    masker = SecretMasker()
    masker.add("left")
    masker.add("right")

    assert masker.mask("<leftright>") == "<***>"
