"""Admin clients: their names, and when they count."""

from datetime import UTC, datetime

import pytest

from sentryagent_idp.domain.client import AdminClient, name_problem


@pytest.mark.parametrize("name", ["x", "CI bot", "größe", "n" * 128])
def test_good_names(name):
    """A name is any printable text."""
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", " ", " x", "x ", "a\nb", "a\x1b[31m", "n" * 129])
def test_bad_names(name):
    """A name that would break the lines of a list, or is none, is refused with advice."""
    assert "1 to 128 printable characters" in name_problem(name)


def test_live_until_revoked():
    """A client counts until it is revoked."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert AdminClient("admin-1", "x", (), "hash", now).is_live
    assert not AdminClient("admin-1", "x", (), "hash", now, revoked_at=now).is_live
