"""The audit log's hash chain, next to the records, which stay as they were written."""

import sqlalchemy as sa
from alembic import op

revision = "024"
down_revision = "023"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables.

    A seal has no foreign key to its record: a deleted record must be detected, not prevented.
    """
    op.create_table(
        "audit_seals",
        sa.Column("seal", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seal", name="pk_audit_seals"),
        sa.UniqueConstraint("sequence", name="uq_audit_seals_sequence"),
    )
    op.create_table(
        "audit_gaps",
        sa.Column("first_sequence", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("first_sequence", name="pk_audit_gaps"),
    )


def downgrade() -> None:
    """Drop the tables; the records stay, and after a later upgrade they are sealed again."""
    op.drop_table("audit_gaps")
    op.drop_table("audit_seals")
