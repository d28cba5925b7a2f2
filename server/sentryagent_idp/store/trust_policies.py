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
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    Select,
    Table,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    collate,
    delete,
    func,
    insert,
    not_,
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
    *(Column(name, _TYPES[type(condition)]) for name, condition in DECLARED.items()),
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

_T = OIDC_TRUST_POLICIES.c
_EXACT = ("provider", "issuer", "repository_id", "agent_id", "enabled")
_AGE = (_T.created_at, _T.id)
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
_MARK_USED = (
    update(OIDC_TRUST_POLICIES)
    .where(
        _T.id == bindparam("policy_id"),
        or_(_T.last_used_at.is_(None), _T.last_used_at <= bindparam("used_before", type_=Moment)),
    )
    .values(last_used_at=bindparam("now", type_=Moment))
)


class PolicyTable:
    """Trust policies in one transaction (`sentryagent_idp.ports.Policies`)."""

    def __init__(self, connection: Connection, *, lock: bool) -> None:
        self._connection = connection
        self._lock = lock

    def get(self, policy_id: UUID) -> TrustPolicy | None:
        return next(iter(self._locked(select(OIDC_TRUST_POLICIES).where(_T.id == policy_id))), None)

    def for_repository(self, issuer: str, repository_key: str) -> Sequence[TrustPolicy]:
        rows = self._connection.execute(_OF_REPOSITORY, {"issuer": issuer, "key": repository_key})
        return [_policy(row) for row in rows]

    def fingerprints(self, repository_keys: Collection[str]) -> Mapping[tuple[str, str], Hashable]:
        found = defaultdict[tuple[str, str], set[Any]](set)
        statement = _FINGERPRINTS.format(driver.places(self._connection.dialect, len(repository_keys)))
        for row in driver.run(self._connection, statement, tuple(repository_keys)):
            issuer, repository_key, *_ = row
            found[issuer, repository_key].add(row)
        return {repository: frozenset(rows) for repository, rows in found.items()}

    def page(self, wanted: PolicyFilter, *, page: int, limit: int) -> Page[TrustPolicy]:
        conditions = [condition for condition in self._conditions(wanted) if condition is not None]
        total, rows = fetch_page(
            self._connection, OIDC_TRUST_POLICIES, conditions, _AGE, page=page, limit=limit
        )
        return Page([_policy(row) for row in rows], total)

    def _conditions(self, wanted: PolicyFilter) -> Iterator[ColumnElement[bool] | None]:
        """What the filter says about a row, where it says something."""
        for name in _EXACT:
            value = getattr(wanted, name)
            yield None if value is None else _T[name] == value
        if wanted.repository is not None:
            yield _T.repository_key == ascii_lower(wanted.repository)
        if wanted.owner is not None:
            yield _T.repository_key.startswith(f"{ascii_lower(wanted.owner)}/", autoescape=True)
        if wanted.bootstrap is not None:
            yield _T.agent_id.is_(None) if wanted.bootstrap else _T.agent_id.is_not(None)
        if wanted.derived_from is not None:
            yield _is_derived_from(wanted.derived_from)
        if wanted.expired is not None:
            is_expired = and_(_T.expires_at.is_not(None), _T.expires_at <= wanted.now)
            yield is_expired if wanted.expired else not_(is_expired)
        if wanted.unused_since is not None:
            yield func.coalesce(_T.last_used_at, _T.created_at) < wanted.unused_since
        if wanted.expires_before is not None:
            yield _T.expires_at < wanted.expires_before
        if wanted.search is not None:
            yield self._contains(ascii_lower(wanted.search))

    def _contains(self, text: str) -> ColumnElement[bool]:
        # On PostgreSQL only the collation C leaves letters outside ASCII as they are, as SQLite does.
        is_postgresql = self._connection.dialect.name == "postgresql"
        description = collate(_T.description, "C") if is_postgresql else _T.description
        return or_(
            _T.repository_key.contains(text, autoescape=True),
            func.lower(description).contains(text, autoescape=True),
        )

    def derived_from(self, policy_id: UUID) -> Sequence[TrustPolicy]:
        is_derived = _is_derived_from(policy_id)
        return self._locked(select(OIDC_TRUST_POLICIES).where(is_derived).order_by(*_AGE))

    def add(self, policy: TrustPolicy) -> None:
        with self._unique(policy):
            self._connection.execute(insert(OIDC_TRUST_POLICIES), _values(policy))

    def replace(self, policy: TrustPolicy) -> None:
        with self._unique(policy):
            self._connection.execute(
                update(OIDC_TRUST_POLICIES).where(_T.id == policy.id).values(_values(policy))
            )

    def delete(self, policy_id: UUID) -> None:
        is_bootstrap = and_(_T.derived_from == policy_id, _T.agent_id.is_(None))
        self._connection.execute(update(OIDC_TRUST_POLICIES).where(is_bootstrap).values(derived_from=None))
        self._connection.execute(delete(OIDC_TRUST_POLICIES).where(_T.id == policy_id))

    def pin(
        self, *, issuer: str, repository_key: str, repository_id: str, owner_id: str, now: datetime
    ) -> Sequence[UUID]:
        return self._connection.scalars(
            update(OIDC_TRUST_POLICIES)
            .where(
                _T.issuer == issuer,
                _T.repository_key == repository_key,
                or_(_T.repository_id.is_(None), _T.repository_owner_id.is_(None)),
            )
            .values(
                repository_id=func.coalesce(_T.repository_id, repository_id),
                repository_owner_id=func.coalesce(_T.repository_owner_id, owner_id),
                version=_T.version + 1,
                updated_at=now,
            )
            .returning(_T.id)
        ).all()

    def mark_used(self, policy_ids: Collection[UUID], now: datetime) -> None:
        times = {"now": now, "used_before": now - USE_IS_RECORDED_EVERY}
        # In one order, so that no two replicas wait for each other.
        rows = [{"policy_id": policy_id, **times} for policy_id in sorted(policy_ids)]
        self._connection.execute(_MARK_USED, rows)

    def _locked(self, statement: Select[Any]) -> Sequence[TrustPolicy]:
        """The policies, whose rows stay locked in a write transaction."""
        if self._lock:
            statement = statement.with_for_update(key_share=True)
        return [_policy(row) for row in self._connection.execute(statement)]

    @contextmanager
    def _unique(self, policy: TrustPolicy) -> Iterator[None]:
        refusal = TrustPolicyAlreadyExists(
            "Another trust policy has the same agent, repository and conditions; change that one."
        )
        try:
            with unique(self._connection, "conditions_key", refusal):
                yield
        except TrustPolicyAlreadyExists:
            same = select(_T.id, _T.version).where(_T.conditions_key == _digest(policy))
            # None if it was removed in the meantime.
            for row in self._connection.execute(same):
                refusal.details.update(policyId=str(row.id), version=row.version)
            raise


def _is_derived_from(policy_id: UUID) -> ColumnElement[bool]:
    # A bootstrap policy is never derived. Some have an origin in their row: a PUT could once make them of derived ones.
    return and_(_T.derived_from == policy_id, _T.agent_id.is_not(None))


def _values(policy: TrustPolicy) -> dict[str, Any]:
    values = asdict(policy)
    conditions: dict[str, Any] = values.pop("conditions")
    keys = {"repository_key": policy.repository_key, "conditions_key": _digest(policy)}
    return values | conditions | keys


def _digest(policy: TrustPolicy) -> str:
    """The policy's `conditions_key` as it is stored: a long list of actors would not fit PostgreSQL's index."""
    return sha256(conditions_key(policy).encode()).hexdigest()


def _policy(row: Row[Any]) -> TrustPolicy:
    values = row._asdict()
    del values["repository_key"], values["conditions_key"]
    conditions = Conditions(**{name: values.pop(name) for name in DECLARED})
    if values["agent_id"] is None:
        values["derived_from"] = None
    return TrustPolicy(conditions=conditions, **values)
