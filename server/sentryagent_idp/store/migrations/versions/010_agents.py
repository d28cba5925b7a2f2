"""The agents."""

import sqlalchemy as sa
from alembic import op

revision = "010"
down_revision = "002"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.String(36), nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("email_key", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("agent_type", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("capabilities", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("deployment_env", sa.Text, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("registered_by_provider", sa.Text),
        sa.Column("registered_by_repository", sa.Text),
        sa.Column("registered_by_repository_id", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", name="pk_agents"),
        sa.UniqueConstraint("email_key", name="uq_agents_email_key"),
        sa.CheckConstraint("email <> ''", name="ck_agents_email"),
        sa.CheckConstraint("status IN ('active', 'suspended', 'decommissioned')", name="ck_agents_status"),
    )
    op.create_index("ix_agents_created_at_agent_id", "agents", ["created_at", "agent_id"])
    op.create_index("ix_agents_owner", "agents", ["owner"])
    op.create_index("ix_agents_registered_by_repository_id", "agents", ["registered_by_repository_id"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("agents")
