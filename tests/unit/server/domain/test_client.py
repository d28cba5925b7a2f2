"""Admin clients: their names and their status."""

from datetime import UTC, datetime, timedelta

import pytest

from sentryagent_idp.domain.client import Client, name_problem


@pytest.mark.parametrize("name", ["x", "CI bot", "größe", "n" * 128])
def test_good_names(name):
    """A name is any printable text."""
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", " ", " x", "x ", "a\nb", "a\x1b[31m", "n" * 129])
def test_bad_names(name):
    """A name that is empty or would break a line of a list is refused with advice."""
    assert "1 to 128 printable characters" in name_problem(name)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON = NOW + timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "active"),
        ({"expires_at": SOON}, "active"),
        ({"expires_at": NOW}, "expired"),
        ({"revoked_at": NOW}, "revoked"),
        ({"revoked_at": NOW, "expires_at": NOW}, "revoked"),
    ],
)
def test_status(fields, status):
    """A client is active until it is revoked or expires."""
    assert Client("admin-1", "x", (), "hash", NOW, **fields).status(NOW) == status


@pytest.mark.parametrize(
    ("fields", "hashes"),
    [
        ({}, ("new",)),
        ({"old_secret_hash": "old", "old_secret_until": SOON}, ("new", "old")),
        ({"old_secret_hash": "old", "old_secret_until": NOW}, ("new",)),
        ({"old_secret_hash": "old"}, ("new",)),
    ],
)
def test_secrets_that_are_good(fields, hashes):
    """The old secret is valid until its end, and without an end not at all."""
    assert Client("admin-1", "x", (), "new", NOW, **fields).secret_hashes(NOW) == hashes
