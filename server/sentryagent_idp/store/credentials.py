"""The table of agents' client secrets, stored as hashes."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, ColumnElement, ForeignKey, Index, Table, Text, and_, insert, select, update
from sqlalchemy.engine import Connection

from sentryagent_idp.domain.agent import Credential
from sentryagent_idp.store.columns import METADATA, Id, Moment

CREDENTIALS = Table(
    "credentials",
    METADATA,
    Column("credential_id", Id, primary_key=True),
    Column("agent_id", Id, ForeignKey("agents.agent_id"), nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Index(None, "agent_id"),
)

_T = CREDENTIALS.c


class CredentialTable:
    """Credentials in one transaction (`sentryagent_idp.ports.Credentials`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, agent_id: UUID, credential_id: UUID) -> Credential | None:
        return next(iter(self._where(_T.agent_id == agent_id, _T.credential_id == credential_id)), None)

    def of_agent(self, agent_id: UUID) -> Sequence[Credential]:
        return self._where(_T.agent_id == agent_id)

    def live(self, agent_id: UUID, now: datetime) -> Sequence[Credential]:
        is_live = and_(_T.revoked_at.is_(None), _T.expires_at.is_(None) | (_T.expires_at > now))
        return self._where(_T.agent_id == agent_id, is_live)

    def add(self, credential: Credential) -> None:
        self._connection.execute(insert(CREDENTIALS), asdict(credential))

    def replace(self, credential: Credential) -> None:
        self._connection.execute(
            update(CREDENTIALS).where(_T.credential_id == credential.credential_id).values(asdict(credential))
        )

    def _where(self, *conditions: ColumnElement[bool]) -> Sequence[Credential]:
        """Return the credentials that match the conditions, oldest first."""
        oldest_first = select(CREDENTIALS).where(*conditions).order_by(_T.created_at, _T.credential_id)
        return [Credential(**row._asdict()) for row in self._connection.execute(oldest_first)]
