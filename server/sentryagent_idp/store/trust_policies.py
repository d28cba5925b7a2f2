"""The table of trust policies."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Connection, Row

from sentryagent_idp.domain import condition_kinds
from sentryagent_idp.domain.conditions import DECLARED, Conditions
from sentryagent_idp.domain.records import Page
from sentryagent_idp.domain.text import ascii_lower
from sentryagent_idp.domain.trust_policy import (
    USE_IS_RECORDED_EVERY,
    PolicyFilter,
    TrustPolicy,
    conditions_key,
)
from sentryagent_idp.errors import TrustPolicyAlreadyExists
from sentryagent_idp.store import driver
from sentryagent_idp.store.columns import METADATA, Id, Moment, WordLists, Words
from sentryagent_idp.store.failures import unique
from sentryagent_idp.store.paging import fetch_page

_TYPES = {
    condition_kinds.Condition: Text,
    condition_kinds.Listed: Words,
    condition_kinds.Flag: Boolean,
    condition_kinds.Mapped: WordLists,
}
"""The type of the column of each kind of condition."""

OIDC_TRUST_POLICIES = Table(
    "oidc_trust_policies",
    METADATA,
    Column("id", Id, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("repository", Text, nullable=False),
    Column("repository_key", Text, nullable=False),
    Column("repository_id", Text),
    Column("repository_owner_id", Text),
    Column("agent_id", Id, ForeignKey("agents.agent_id")),
    *(Column(name, _TYPES[type(it)]) for name, it in DECLARED.items()),
    Column("conditions_key", Text, nullable=False),
    Column("scopes", Words, nullable=False),
    Column("max_ttl", Integer),
    Column("trust_registered", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("expires_at", Moment),
    Column("description", Text),
    Column("version", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("last_used_at", Moment),
    Column("derived_from", Id, ForeignKey("oidc_trust_policies.id", ondelete="CASCADE")),
    UniqueConstraint("conditions_key"),
    Index(None, "repository_key", "issuer"),
    Index(None, "agent_id"),
    Index(None, "derived_from"),
    Index(None, "created_at", "id"),
)

_DERIVED = frozenset({"repository_key", "conditions_key"})

_T = OIDC_TRUST_POLICIES.c
_AGE = (_T.created_at, _T.id)
_BY_ID = select(OIDC_TRUST_POLICIES).where(_T.id == bindparam("policy_id"))
_BY_ID_LOCKED = _BY_ID.with_for_update(key_share=True)
_OF_REPOSITORY = (
    select(OIDC_TRUST_POLICIES)
    .where(_T.issuer == bindparam("issuer"), _T.repository_key == bindparam("key"))
    .order_by(*_AGE)
)
_FINGERPRINTS = """
    SELECT issuer, repository_key, oidc_trust_policies.id, oidc_trust_policies.version, agents.status
    FROM oidc_trust_policies LEFT OUTER JOIN agents ON agents.agent_id = oidc_trust_policies.agent_id
    WHERE repository_key IN ({})
"""
# A bootstrap policy is never derived. Some have an origin in their row: a PUT could once make them of derived ones.
_DERIVED_FROM = (
    select(OIDC_TRUST_POLICIES)
    .where(_T.derived_from == bindparam("policy_id"), _T.agent_id.is_not(None))
    .order_by(*_AGE)
)
_DERIVED_FROM_LOCKED = _DERIVED_FROM.with_for_update(key_share=True)
_UNLINK_BOOTSTRAP = (
    update(OIDC_TRUST_POLICIES)
    .where(_T.derived_from == bindparam("policy_id"), _T.agent_id.is_(None))
    .values(derived_from=None)
)
_TWIN = select(_T.id, _T.version).where(_T.conditions_key == bindparam("key"))
_MARK_USED = (
    update(OIDC_TRUST_POLICIES)
    .where(
        _T.id == bindparam("policy_id"),
        or_(_T.last_used_at.is_(None), _T.last_used_at <= bindparam("used_before", type_=Moment)),
    )
    .values(last_used_at=bindparam("now", type_=Moment))
)
_PIN = (
    update(OIDC_TRUST_POLICIES)
    .where(
        _T.issuer == bindparam("of_issuer"),
        _T.repository_key == bindparam("key"),
        or_(_T.repository_id.is_(None), _T.repository_owner_id.is_(None)),
    )
    .values(
        repository_id=func.coalesce(_T.repository_id, bindparam("new_repository_id")),
        repository_owner_id=func.coalesce(_T.repository_owner_id, bindparam("new_owner_id")),
        version=_T.version + 1,
        updated_at=bindparam("now", type_=Moment),
    )
    .returning(_T.id)
)


class PolicyTable:
    """Trust policies in one transaction (`sentryagent_idp.ports.Policies`)."""

    def __init__(self, connection: Connection, *, lock: bool) -> None:
        self._connection = connection
        self._by_id = _BY_ID_LOCKED if lock else _BY_ID
        self._derived_from = _DERIVED_FROM_LOCKED if lock else _DERIVED_FROM

    def get(self, policy_id: UUID) -> TrustPolicy | None:
        row = self._connection.execute(self._by_id, {"policy_id": policy_id}).one_or_none()
        return None if row is None else _policy(row)

    def for_repository(self, issuer: str, repository_key: str) -> Sequence[TrustPolicy]:
        rows = self._connection.execute(_OF_REPOSITORY, {"issuer": issuer, "key": repository_key})
        return [_policy(row) for row in rows]

    def fingerprints(self, repository_keys: Collection[str]) -> Mapping[tuple[str, str], Hashable]:
        found = defaultdict[tuple[str, str], set[Any]](set)
        statement = _FINGERPRINTS.format(driver.places(self._connection, len(repository_keys)))
        for row in driver.run(self._connection, statement, tuple(repository_keys)):
            issuer, repository_key, *_ = row
            found[issuer, repository_key].add(row)
        return {repository: frozenset(rows) for repository, rows in found.items()}

    def page(self, wanted: PolicyFilter, *, page: int, limit: int) -> Page[TrustPolicy]:
        conditions = [
            column == value
            for column, value in (
                (_T.provider, wanted.provider),
                (_T.repository_key, None if wanted.repository is None else ascii_lower(wanted.repository)),
                (_T.agent_id, wanted.agent_id),
            )
            if value is not None
        ]
        total, rows = fetch_page(
            self._connection, OIDC_TRUST_POLICIES, conditions, _AGE, page=page, limit=limit
        )
        return Page([_policy(row) for row in rows], total)

    def derived_from(self, policy_id: UUID) -> Sequence[TrustPolicy]:
        return [
            _policy(row) for row in self._connection.execute(self._derived_from, {"policy_id": policy_id})
        ]

    def add(self, policy: TrustPolicy) -> None:
        with self._unique(policy):
            self._connection.execute(insert(OIDC_TRUST_POLICIES), _values(policy))

    def replace(self, policy: TrustPolicy) -> None:
        with self._unique(policy):
            self._connection.execute(
                update(OIDC_TRUST_POLICIES).where(_T.id == policy.id).values(_values(policy))
            )

    def delete(self, policy_id: UUID) -> None:
        self._connection.execute(_UNLINK_BOOTSTRAP, {"policy_id": policy_id})
        self._connection.execute(delete(OIDC_TRUST_POLICIES).where(_T.id == policy_id))

    def pin(
        self, *, issuer: str, repository_key: str, repository_id: str, owner_id: str, now: datetime
    ) -> Sequence[UUID]:
        return (
            self._connection.execute(
                _PIN,
                {
                    "of_issuer": issuer,
                    "key": repository_key,
                    "new_repository_id": repository_id,
                    "new_owner_id": owner_id,
                    "now": now,
                },
            )
            .scalars()
            .all()
        )

    def mark_used(self, policy_ids: Collection[UUID], now: datetime) -> None:
        times = {"now": now, "used_before": now - USE_IS_RECORDED_EVERY}
        # In one order, so that no two replicas wait for each other.
        rows = [{"policy_id": policy_id, **times} for policy_id in sorted(policy_ids)]
        self._connection.execute(_MARK_USED, rows)

    @contextmanager
    def _unique(self, policy: TrustPolicy) -> Iterator[None]:
        refusal = TrustPolicyAlreadyExists(
            "Another trust policy has the same agent, repository and conditions; change that one."
        )
        try:
            with unique(self._connection, "conditions_key", refusal):
                yield
        except TrustPolicyAlreadyExists:
            refusal.details.update(self._twin_of(policy))
            raise

    def _twin_of(self, policy: TrustPolicy) -> dict[str, Any]:
        """Which policy has the same key; nothing where it was removed in the meantime."""
        row = self._connection.execute(_TWIN, {"key": _digest(policy)}).one_or_none()
        return {} if row is None else {"policyId": str(row.id), "version": row.version}


def _values(policy: TrustPolicy) -> dict[str, Any]:
    """The row of a policy."""
    values = asdict(policy)
    conditions: dict[str, Any] = values.pop("conditions")
    keys = {"repository_key": policy.repository_key, "conditions_key": _digest(policy)}
    return values | conditions | keys


def _digest(policy: TrustPolicy) -> str:
    """The policy's `conditions_key` as it is stored: a long list of actors would not fit PostgreSQL's index."""
    return sha256(conditions_key(policy).encode()).hexdigest()


def _policy(row: Row[Any]) -> TrustPolicy:
    """The policy of a row."""
    values = {name: value for name, value in row._asdict().items() if name not in _DERIVED}
    conditions = Conditions(**{name: values.pop(name) for name in DECLARED})
    if values["agent_id"] is None:
        values["derived_from"] = None
    return TrustPolicy(conditions=conditions, **values)
