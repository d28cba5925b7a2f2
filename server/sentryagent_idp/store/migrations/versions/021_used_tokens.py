"""Exchanged GitHub tokens: the primary key prevents replay."""

import sqlalchemy as sa
from alembic import op

revision = "021"
down_revision = "013"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "used_tokens",
        sa.Column("token_digest", sa.LargeBinary, nullable=False),
        sa.Column("keep_until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("token_digest", name="pk_used_tokens"),
    )
    op.create_index("ix_used_tokens_keep_until", "used_tokens", ["keep_until"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("used_tokens")
