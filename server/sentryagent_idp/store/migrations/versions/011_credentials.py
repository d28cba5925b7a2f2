"""The agents' client secrets, stored as hashes."""

import sqlalchemy as sa
from alembic import op

revision = "011"
down_revision = "010"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "credentials",
        sa.Column("credential_id", sa.String(36), nullable=False),
        sa.Column("agent_id", sa.String(36), nullable=False),
        sa.Column("secret_hash", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("credential_id", name="pk_credentials"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.agent_id"], name="fk_credentials_agent_id"),
    )
    op.create_index("ix_credentials_agent_id", "credentials", ["agent_id"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("credentials")
