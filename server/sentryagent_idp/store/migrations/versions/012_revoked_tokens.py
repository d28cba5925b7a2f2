"""Our access tokens that were revoked before they expired."""

import sqlalchemy as sa
from alembic import op

revision = "012"
down_revision = "011"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "revoked_tokens",
        sa.Column("jti", sa.Text, nullable=False),
        sa.Column("keep_until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("jti", name="pk_revoked_tokens"),
    )
    op.create_index("ix_revoked_tokens_keep_until", "revoked_tokens", ["keep_until"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("revoked_tokens")
