"""The table of the agents' client secrets, as hashes."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, ForeignKey, Index, Table, Text, bindparam, insert, select, update
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
_OF_AGENT = (
    select(CREDENTIALS).where(_T.agent_id == bindparam("agent_id")).order_by(_T.created_at, _T.credential_id)
)
_LIVE = _OF_AGENT.where(
    _T.revoked_at.is_(None), _T.expires_at.is_(None) | (_T.expires_at > bindparam("now", type_=Moment))
)
_ONE = select(CREDENTIALS).where(
    _T.agent_id == bindparam("agent_id"), _T.credential_id == bindparam("credential_id")
)


class CredentialTable:
    """Credentials in one transaction (`sentryagent_idp.ports.Credentials`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, agent_id: UUID, credential_id: UUID) -> Credential | None:
        keys = {"agent_id": agent_id, "credential_id": credential_id}
        row = self._connection.execute(_ONE, keys).one_or_none()
        return None if row is None else Credential(**row._asdict())

    def of_agent(self, agent_id: UUID) -> Sequence[Credential]:
        rows = self._connection.execute(_OF_AGENT, {"agent_id": agent_id})
        return [Credential(**row._asdict()) for row in rows]

    def live(self, agent_id: UUID, now: datetime) -> Sequence[Credential]:
        rows = self._connection.execute(_LIVE, {"agent_id": agent_id, "now": now})
        return [Credential(**row._asdict()) for row in rows]

    def add(self, credential: Credential) -> None:
        self._connection.execute(insert(CREDENTIALS), asdict(credential))

    def replace(self, credential: Credential) -> None:
        self._connection.execute(
            update(CREDENTIALS).where(_T.credential_id == credential.credential_id).values(asdict(credential))
        )
