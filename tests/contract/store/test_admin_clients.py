"""Admin clients, on both engines."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from sentryagent_idp.domain.client import AdminClient


@pytest.fixture
def client(now):
    """A client with two scopes."""
    return AdminClient("admin-1", "größe", ("agents:read", "audit:read"), "$argon2id$…", now)


def test_clients_come_back_as_they_were_stored(database, client, now):
    """Clients are read back equal, oldest first, and can be replaced; an unknown one is `None`."""
    older = replace(client, client_id="admin-2", created_at=now - timedelta(seconds=1))
    with database.write() as tx:
        tx.clients.add(client)
        tx.clients.add(older)
        assert tx.clients.get("admin-1") == client
    revoked = replace(client, secret_hash="other", revoked_at=now)
    with database.write() as tx:
        tx.clients.replace(revoked)
    with database.read() as tx:
        assert tx.clients.all() == [older, revoked]
        assert tx.clients.get("admin-3") is None


def test_no_client_is_named_otherwise(database, client):
    """The database refuses a client whose tokens would not pass for an administrator's."""
    with pytest.raises(IntegrityError), database.write() as tx:
        tx.clients.add(replace(client, client_id="repo:octo/repo"))
