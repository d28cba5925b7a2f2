"""The audit log."""

import sqlalchemy as sa
from alembic import op

revision = "013"
down_revision = "012"


def upgrade() -> None:
    """Create the table; a `sequence` is never reused, not even after a purge."""
    op.create_table(
        "audit_log",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.Identity(always=True),
            nullable=False,
        ),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("agent_id", sa.String(36)),
        sa.Column("policy_id", sa.String(36)),
        sa.Column("policy_version", sa.Integer),
        sa.Column("repository", sa.Text),
        sa.Column("repository_key", sa.Text),
        sa.Column("details", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_log"),
        sa.UniqueConstraint("event_id", name="uq_audit_log_event_id"),
        sa.CheckConstraint("action <> ''", name="ck_audit_log_action"),
        sa.CheckConstraint("outcome IN ('success', 'failure')", name="ck_audit_log_outcome"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_log_timestamp", "audit_log", ["timestamp"])
    op.create_index("ix_audit_log_request_id", "audit_log", ["request_id"])
    for column in ("action", "agent_id", "policy_id", "repository_key"):
        op.create_index(f"ix_audit_log_{column}_sequence", "audit_log", [column, "sequence"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("audit_log")
