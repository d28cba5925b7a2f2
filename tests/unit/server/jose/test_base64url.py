"""base64url without padding, with the vectors of RFC 4648, 10 and RFC 7515, C."""

import pytest

from sentryagent_idp.jose import base64url

VECTORS = [
    (b"", ""),
    (b"f", "Zg"),
    (b"fo", "Zm8"),
    (b"foo", "Zm9v"),
    (b"foob", "Zm9vYg"),
    (bytes([3, 236, 255, 224, 193]), "A-z_4ME"),
]


@pytest.mark.parametrize(("data", "text"), VECTORS)
def test_vectors(data, text):
    """Encoding and decoding match the vectors."""
    assert base64url.encode(data) == text
    assert base64url.decode(text) == data


@pytest.mark.parametrize("text", ["Zg==", "A+z/4ME", "Zm 8", "Zm8\n", "Zm9\u00e4", "Z", "Zm9vY"])
def test_other_text_is_refused(text):
    """Padding, the other alphabet, whitespace and impossible lengths are refused."""
    with pytest.raises(ValueError, match=r"base64"):
        base64url.decode(text)


def test_unused_bits_are_not_looked_at():
    """`decode` ignores unused bits; callers that need a unique spelling compare with `encode`."""
    assert base64url.decode("Zh") == b"f"
