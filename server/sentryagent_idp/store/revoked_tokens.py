"""The table of our access tokens that were revoked before they expired."""

from datetime import datetime

from sqlalchemy import Column, Index, Table, Text, bindparam, select
from sqlalchemy.engine import Connection

from sentryagent_idp.domain.audit_chain import microseconds
from sentryagent_idp.store.columns import METADATA, Moment
from sentryagent_idp.store.driver import InsertMany
from sentryagent_idp.store.expiring import purge

REVOKED_TOKENS = Table(
    "revoked_tokens",
    METADATA,
    Column("jti", Text, primary_key=True),
    Column("keep_until", Moment, nullable=False),
    Index(None, "keep_until"),
)

_INSERT = InsertMany(REVOKED_TOKENS, ("jti", "keep_until"))
_T = REVOKED_TOKENS.c
_ONE = select(_T.jti).where(_T.jti == bindparam("jti"))


class RevokedTokenTable:
    """Revoked tokens in one transaction (`sentryagent_idp.ports.RevokedTokens`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def contains(self, jti: str) -> bool:
        return self._connection.execute(_ONE, {"jti": jti}).first() is not None

    def add(self, jti: str, *, keep_until: datetime) -> None:
        _INSERT.new(self._connection, [(jti, microseconds(keep_until))])

    def purge(self, now: datetime, *, limit: int) -> int:
        return purge(self._connection, REVOKED_TOKENS, _T.keep_until, now, limit=limit)
