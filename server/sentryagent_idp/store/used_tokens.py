"""The table of exchanged GitHub tokens."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Column, Index, LargeBinary, Table, bindparam, select
from sqlalchemy.engine import Connection

from sentryagent_idp.domain.audit_chain import microseconds
from sentryagent_idp.domain.used_token import UsedToken
from sentryagent_idp.store.columns import METADATA, Moment
from sentryagent_idp.store.driver import InsertMany
from sentryagent_idp.store.expiring import purge

USED_TOKENS = Table(
    "used_tokens",
    METADATA,
    Column("token_digest", LargeBinary, primary_key=True),
    Column("keep_until", Moment, nullable=False),
    Index(None, "keep_until"),
)

_INSERT = InsertMany(USED_TOKENS, ("token_digest", "keep_until"))
_T = USED_TOKENS.c
_ONE = select(_T.keep_until).where(_T.token_digest == bindparam("digest"))


class UsedTokenTable:
    """Used tokens in one transaction (`sentryagent_idp.ports.UsedTokens`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def contains(self, issuer: str, jti: str) -> bool:
        return self._connection.execute(_ONE, {"digest": _digest(issuer, jti)}).first() is not None

    def claim(self, token: UsedToken) -> bool:
        return self.claim_all([token])[0]

    def claim_all(self, tokens: Sequence[UsedToken]) -> Sequence[bool]:
        digests = [_digest(token.issuer, token.jti) for token in tokens]
        first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
        # In a fixed order: two replicas with the same two tokens must not deadlock.
        rows = [(digest, microseconds(tokens[first[digest]].keep_until)) for digest in sorted(first)]
        unused = _INSERT.new(self._connection, rows)
        return [digest in unused and first[digest] == position for position, digest in enumerate(digests)]

    def purge(self, now: datetime, *, limit: int) -> int:
        return purge(self._connection, USED_TOKENS, _T.keep_until, now, limit=limit)


def _digest(issuer: str, jti: str) -> bytes:
    """Return the key of a token: SHA-256 over the issuer and the `jti`, separated by NUL (no issuer's URL has one).

    A `jti` can be long and contain any character; its digest fits an index on both databases, and ten million of
    them stay small.
    """
    return sha256(f"{issuer}\0{jti}".encode(errors="surrogatepass")).digest()
