"""Every lookup of an exchange uses an index, however many rows there are."""

import re
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import insert

from sentryagent_idp.domain.agent import AgentFilter
from sentryagent_idp.domain.audit import AuditFilter, Order
from sentryagent_idp.domain.service import ServiceFilter
from sentryagent_idp.domain.trust_policy import PolicyFilter
from sentryagent_idp.store import trust_policies
from sentryagent_idp.store.audit import AUDIT_LOG
from sentryagent_idp.store.used_tokens import USED_TOKENS

ROWS = 2000
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def _rows(database, make_policy, now):
    """Enough rows and fresh statistics for PostgreSQL's planner to prefer an index."""
    audit = {
        "timestamp": now,
        "action": "token.issued",
        "outcome": "success",
        "actor": "a",
        "request_id": "r",
    }
    with database.write() as tx:
        for table, row in (
            (
                trust_policies.OIDC_TRUST_POLICIES,
                lambda it: trust_policies._values(
                    make_policy(repository=f"octo/r{it}", repository_id=str(it))
                ),
            ),
            (USED_TOKENS, lambda it: {"token_digest": it.to_bytes(32), "keep_until": now}),
            (
                AUDIT_LOG,
                lambda it: audit | {"event_id": UUID(int=it), "repository_key": f"octo/r{it}", "details": {}},
            ),
        ):
            tx.settings._connection.execute(insert(table), [row(number) for number in range(ROWS)])
        tx.settings._connection.exec_driver_sql("ANALYZE")


@pytest.fixture
def plans(database, statements, _rows):
    """Run a call in a write transaction and return the plans of its statements."""

    def plans(call):
        with database.write() as tx:
            statements.clear()
            call(tx)
            return [explain(tx.settings._connection, *statement) for statement in tuple(statements)]

    def explain(connection, statement, parameters):
        keyword = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        rows = connection.exec_driver_sql(f"{keyword} {statement}", parameters)
        return "\n".join(str(row[-1]) for row in rows)

    return plans


def test_an_exchange_reads_no_table_from_end_to_end(plans, now, make_policy):
    """Every lookup of an exchange uses an index."""
    policy = make_policy()

    def exchange(tx):
        tx.used_tokens.contains("issuer", "7")
        tx.policies.for_repository(policy.issuer, "octo/r7")
        tx.policies.names_of(policy.issuer, "7")
        tx.policies.pin(
            issuer=policy.issuer, repository_key="octo/r7", repository_id="1", owner_id="2", now=now
        )
        tx.policies.mark_used([policy.id], now)

    found = plans(exchange)
    assert len(found) == 5
    for plan in found:
        assert "SEARCH" in plan or "Index Cond" in plan, plan
        assert "SCAN" not in plan, plan
        assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    ("call", "index"),
    [
        (lambda tx, now: tx.used_tokens.purge(now, limit=10), "ix_used_tokens_keep_until"),
        (
            lambda tx, now: tx.audit.page(AuditFilter(start=now, end=now), page=1, limit=20),
            "ix_audit_log_timestamp",
        ),
        (
            lambda tx, now: tx.audit.page(AuditFilter(repository="octo/r7"), page=1, limit=20),
            "ix_audit_log_repository_key_sequence",
        ),
        (
            lambda tx, now: tx.policies.fingerprints(["octo/r7", "octo/r8"]),
            "ix_oidc_trust_policies_repository_key_issuer",
        ),
        (
            lambda tx, now: tx.policies.page(PolicyFilter(repository="octo/r7"), page=1, limit=20),
            "ix_oidc_trust_policies_repository_key_issuer",
        ),
        (
            lambda tx, now: tx.policies.page(PolicyFilter(), page=3, limit=20),
            "ix_oidc_trust_policies_created_at_id",
        ),
    ],
)
def test_purges_and_pages_walk_an_index(plans, now, call, index):
    """Purges and pages find their rows through an index, without sorting the table."""
    assert any(index in plan for plan in plans(lambda tx: call(tx, now)))


UNIQUE = {"sequence", "seal", "key", "id", "agent_id", "service_id"}
"""The columns that are unique within an ordered list; `key` is a sequence or a seal."""


@pytest.mark.parametrize(
    "call",
    [
        lambda tx, now: tx.agents.page(AgentFilter(), page=1, limit=20),
        lambda tx, now: tx.services.page(ServiceFilter(), page=1, limit=20),
        lambda tx, now: tx.policies.page(PolicyFilter(), page=1, limit=20),
        lambda tx, now: tx.audit.page(AuditFilter(start=now, end=now), page=1, limit=20),
        lambda tx, now: tx.audit.page(AuditFilter(start=now, end=now, order=Order.OLDEST), page=1, limit=20),
        lambda tx, now: tx.audit.page(AuditFilter(repository="octo/r7", outcome="failure"), page=1, limit=20),
        lambda tx, now: tx.seals.before(now),
    ],
)
@pytest.mark.usefixtures("_rows")
def test_rows_of_one_moment_have_an_order(database, statements, make_agent, make_service, now, call):
    """Each ORDER BY ends with a unique column: PostgreSQL may return ties in a different order each time."""
    with database.write() as tx:
        tx.agents.add(make_agent())
        tx.services.add(make_service())
        statements.clear()
        call(tx, now)
    orders = [it for sql, _ in statements for it in re.findall(r"ORDER BY (.+?)\s+LIMIT", sql, re.DOTALL)]
    assert orders
    last = [re.sub(r" (?:ASC|DESC)$", "", it).rpartition(".")[2].strip('"') for it in orders]
    assert set(last) <= UNIQUE, orders


AUDIT_FILTERS = [
    ({"action": "key.rotated"}, "ix_audit_log_action_sequence"),
    ({"agent_id": UUID(int=7)}, "ix_audit_log_agent_id_sequence"),
    ({"policy_id": UUID(int=7)}, "ix_audit_log_policy_id_sequence"),
    ({"repository": "octo/r7"}, "ix_audit_log_repository_key_sequence"),
    ({"request_id": "r7"}, "ix_audit_log_request_id"),
    ({"event_id": UUID(int=7)}, "uq_audit_log_event_id"),
    ({"after": UUID(int=7)}, "uq_audit_log_event_id"),
    ({"after": UUID(int=7), "order": Order.OLDEST}, "uq_audit_log_event_id"),
    ({"start": NOW, "end": NOW}, "ix_audit_log_timestamp"),
]
"""Each filter that selects audit records by itself, and the index that it uses.

The other filters (outcome, actor, address, policyVersion) narrow these further, or scan from the newest record.
"""


@pytest.mark.parametrize(("wanted", "index"), AUDIT_FILTERS)
def test_audit_filters_have_an_index(plans, wanted, index):
    """A filtered page costs the same, however long the audit log is."""
    found = plans(lambda tx: tx.audit.page(AuditFilter(**wanted), page=1, limit=20))

    # SQLite numbers the indexes of unique constraints instead of naming them.
    assert any(index in plan or ("uq" in index and "sqlite_autoindex_audit_log_1" in plan) for plan in found)


def test_audit_indexes_are_all_needed():
    """Every index is used by a filter, because every exchange writes to all of them."""
    needed = {index for _, index in AUDIT_FILTERS} - {"uq_audit_log_event_id"}

    assert {index.name for index in AUDIT_LOG.indexes} == needed
