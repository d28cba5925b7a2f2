"""The table of trust policies."""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
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
from sentryagent_idp.store.columns import METADATA, Grants, Id, Moment, WordLists, Words
from sentryagent_idp.store.failures import unique
from sentryagent_idp.store.paging import fetch_page

_TYPES = {
    condition_kinds.Condition: Text,
    condition_kinds.Listed: Words,
    condition_kinds.Flag: Boolean,
    condition_kinds.Mapped: WordLists,
}
"""The column type of each kind of condition."""

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
    Column("grants", Grants, nullable=False, server_default="[]"),
    UniqueConstraint("conditions_key"),
    Index(None, "repository_key", "issuer"),
    Index(None, "repository_id", "issuer"),
    Index(None, "agent_id"),
    Index(None, "derived_from"),
    Index(None, "created_at", "id"),
)

GRANTED_SERVICES = Table(
    "granted_services",
    METADATA,
    Column("policy_id", Id, ForeignKey("oidc_trust_policies.id", ondelete="CASCADE"), primary_key=True),
    Column("service", Text, ForeignKey("services.identifier"), primary_key=True),
    Index(None, "service"),
)
"""The policies that grant each service: an index of their `grants` column, which is authoritative."""

_MOST_NAMES = 3
"""The most names that `names_of` returns; few repositories are renamed more often."""

_T = OIDC_TRUST_POLICIES.c
_G = GRANTED_SERVICES.c
_AGE = (_T.created_at, _T.id)
_OF_REPOSITORY = (
    select(OIDC_TRUST_POLICIES)
    .where(_T.issuer == bindparam("issuer"), _T.repository_key == bindparam("key"))
    .order_by(*_AGE)
)
# Versions only grow, and a granted service cannot be deleted: the sum changes whenever one of the services does.
_FINGERPRINTS = """
    SELECT issuer, repository_key, oidc_trust_policies.id, oidc_trust_policies.version, agents.status,
        CASE WHEN oidc_trust_policies.grants = '[]' THEN 0 ELSE (
            SELECT SUM(services.version)
            FROM granted_services JOIN services ON services.identifier = granted_services.service
            WHERE granted_services.policy_id = oidc_trust_policies.id
        ) END
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


def _granting(service: str) -> Select[tuple[UUID]]:
    return select(_G.policy_id).where(_G.service == service)


def _is_derived_from(policy_id: UUID) -> ColumnElement[bool]:
    # A bootstrap policy is never derived, but old rows may have an origin: a PUT could once make one of a derived policy.
    return and_(_T.derived_from == policy_id, _T.agent_id.is_not(None))


def _is_expired(wanted: tuple[bool, datetime]) -> ColumnElement[bool]:
    is_wanted, now = wanted
    is_expired = and_(_T.expires_at.is_not(None), _T.expires_at <= now)
    return is_expired if is_wanted else not_(is_expired)


def _contains(text: str) -> ColumnElement[bool]:
    return or_(*(column.icontains(text, autoescape=True) for column in (_T.repository, _T.description)))


_NARROWS: Mapping[str, Callable[[Any], ColumnElement[bool]]] = {
    "provider": _T.provider.__eq__,
    "issuer": _T.issuer.__eq__,
    "owner": lambda owner: _T.repository_key.startswith(f"{ascii_lower(owner)}/", autoescape=True),
    "repository": lambda repository: _T.repository_key == ascii_lower(repository),
    "repository_id": _T.repository_id.__eq__,
    "agent_id": _T.agent_id.__eq__,
    "bootstrap": lambda is_wanted: _T.agent_id.is_(None) if is_wanted else _T.agent_id.is_not(None),
    "enabled": _T.enabled.__eq__,
    "expired": _is_expired,
    "derived_from": _is_derived_from,
    "service": lambda service: _T.id.in_(_granting(service)),
    "unused_since": lambda moment: func.coalesce(_T.last_used_at, _T.created_at) < moment,
    "expires_before": _T.expires_at.__lt__,
    "search": _contains,
}
"""The condition on a row for each field of a filter."""


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

    def names_of(self, issuer: str, repository_id: str) -> Sequence[str]:
        names = select(_T.repository).where(_T.repository_id == repository_id, _T.issuer == issuer)
        return self._connection.scalars(names.distinct().order_by(_T.repository).limit(_MOST_NAMES)).all()

    def fingerprints(self, repository_keys: Collection[str]) -> Mapping[tuple[str, str], Hashable]:
        found = defaultdict[tuple[str, str], set[Any]](set)
        statement = _FINGERPRINTS.format(driver.places(self._connection.dialect, len(repository_keys)))
        for row in driver.run(self._connection, statement, tuple(repository_keys)):
            issuer, repository_key, *_ = row
            found[issuer, repository_key].add(row)
        return {repository: frozenset(rows) for repository, rows in found.items()}

    def page(self, wanted: PolicyFilter, *, page: int, limit: int) -> Page[TrustPolicy]:
        values = {name: value for name, value in asdict(wanted).items() if value is not None}
        now = values.pop("now", None)
        if "expired" in values:
            values["expired"] = (values["expired"], now)
        conditions = [_NARROWS[name](value) for name, value in values.items()]
        total, rows = fetch_page(
            self._connection, OIDC_TRUST_POLICIES, conditions, _AGE, page=page, limit=limit
        )
        return Page([_policy(row) for row in rows], total)

    def count_by_issuer(self) -> Mapping[str, int]:
        counts = select(_T.issuer, func.count().label("policies")).group_by(_T.issuer).order_by(_T.issuer)
        return {row.issuer: row.policies for row in self._connection.execute(counts)}

    def of_issuer(self, issuer: str) -> Sequence[TrustPolicy]:
        return self._locked(select(OIDC_TRUST_POLICIES).where(_T.issuer == issuer).order_by(*_AGE))

    def derived_from(self, policy_id: UUID) -> Sequence[TrustPolicy]:
        is_derived = _is_derived_from(policy_id)
        return self._locked(select(OIDC_TRUST_POLICIES).where(is_derived).order_by(*_AGE))

    def granting(self, service: str) -> Sequence[TrustPolicy]:
        granting = select(OIDC_TRUST_POLICIES).where(_T.id.in_(_granting(service))).order_by(*_AGE)
        return [_policy(row) for row in self._connection.execute(granting)]

    def add(self, policy: TrustPolicy) -> None:
        with self._unique(policy):
            self._connection.execute(insert(OIDC_TRUST_POLICIES), _values(policy))
        self._index_grants(policy)

    def replace(self, policy: TrustPolicy) -> None:
        with self._unique(policy):
            self._connection.execute(
                update(OIDC_TRUST_POLICIES).where(_T.id == policy.id).values(_values(policy))
            )
        self._connection.execute(delete(GRANTED_SERVICES).where(_G.policy_id == policy.id))
        self._index_grants(policy)

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
        # In a fixed order, so that two replicas cannot deadlock.
        rows = [{"policy_id": policy_id, **times} for policy_id in sorted(policy_ids)]
        self._connection.execute(_MARK_USED, rows)

    def _locked(self, statement: Select[Any]) -> Sequence[TrustPolicy]:
        """Return the policies; in a write transaction, lock their rows."""
        if self._lock:
            statement = statement.with_for_update(key_share=True)
        return [_policy(row) for row in self._connection.execute(statement)]

    def _index_grants(self, policy: TrustPolicy) -> None:
        rows = [{"policy_id": policy.id, "service": grant.service} for grant in policy.grants]
        if rows:
            self._connection.execute(insert(GRANTED_SERVICES), rows)

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
            # No row if it was deleted in the meantime.
            for row in self._connection.execute(same):
                refusal.details.update(policyId=str(row.id), version=row.version)
            raise


def _values(policy: TrustPolicy) -> dict[str, Any]:
    values = asdict(policy)
    conditions: dict[str, Any] = values.pop("conditions")
    keys = {"repository_key": policy.repository_key, "conditions_key": _digest(policy)}
    return values | conditions | keys


def _digest(policy: TrustPolicy) -> str:
    """Return the hash stored as `conditions_key`: the key of a long list of actors would not fit PostgreSQL's index."""
    return sha256(conditions_key(policy).encode()).hexdigest()


def _policy(row: Row[Any]) -> TrustPolicy:
    values = row._asdict()
    del values["repository_key"], values["conditions_key"]
    conditions = Conditions(**{name: values.pop(name) for name in DECLARED})
    if values["agent_id"] is None:
        values["derived_from"] = None
    return TrustPolicy(conditions=conditions, **values)
