"""Clients, on both engines."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from sentryagent_idp.domain.client import Client


@pytest.fixture
def client(now):
    """A client with two scopes."""
    return Client("admin-1", "größe", ("agents:read", "audit:read"), "$argon2id$…", now)


def test_clients_come_back_as_they_were_stored(database, client, now):
    """Clients are read back equal, oldest first, and can be replaced; an unknown id gives `None`."""
    older = replace(client, client_id="admin-2", created_at=now - timedelta(seconds=1))
    with database.write() as tx:
        tx.clients.add(client)
        tx.clients.add(older)
        assert tx.clients.get("admin-1") == client
    revoked = replace(
        client,
        secret_hash="other",
        revoked_at=now,
        expires_at=now + timedelta(days=1),
        old_secret_hash="old",
        old_secret_until=now + timedelta(hours=1),
        last_used_at=now,
    )
    with database.write() as tx:
        tx.clients.replace(revoked)
    with database.read() as tx:
        assert tx.clients.all() == [older, revoked]
        assert tx.clients.get("admin-3") is None


def test_no_client_is_named_otherwise(database, client):
    """The database refuses a client id that would make its tokens look like a repository's."""
    with pytest.raises(IntegrityError), database.write() as tx:
        tx.clients.add(replace(client, client_id="repo:octo/repo"))


def test_uses_are_recorded_once_a_minute(database, client, now):
    """`last_used_at` is written at most once a minute, so replicas do not update a client's row on each request."""
    with database.write() as tx:
        tx.clients.add(client)
    uses = [(0, 0), (59, 0), (60, 60), (30, 60)]
    for seconds, recorded in uses:
        with database.write() as tx:
            tx.clients.mark_used("admin-1", now + timedelta(seconds=seconds))
        with database.read() as tx:
            assert tx.clients.get("admin-1").last_used_at == now + timedelta(seconds=recorded)


def test_active_clients_are_counted(database, client, now):
    """Only active clients with exactly this name count; expired and revoked ones do not."""
    rows = [
        {},
        {"expires_at": now + timedelta(seconds=1)},
        {"expires_at": now},
        {"revoked_at": now},
        {"name": "GRÖSSE"},
    ]
    with database.write() as tx:
        for number, fields in enumerate(rows):
            tx.clients.add(replace(client, client_id=f"admin-{number}", **fields))
    with database.read() as tx:
        assert tx.clients.named("größe", now) == 2
