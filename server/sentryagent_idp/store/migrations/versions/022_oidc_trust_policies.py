"""Trust policies: which workflow runs of a repository may act as which agent."""

import sqlalchemy as sa
from alembic import op

revision = "022"
down_revision = "021"


def upgrade() -> None:
    """Create the table; conditions that are lists are stored as JSON text."""
    op.create_table(
        "oidc_trust_policies",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("repository", sa.Text, nullable=False),
        sa.Column("repository_key", sa.Text, nullable=False),
        sa.Column("repository_id", sa.Text),
        sa.Column("repository_owner_id", sa.Text),
        sa.Column("agent_id", sa.String(36)),
        sa.Column("branch", sa.Text),
        sa.Column("tag", sa.Text),
        sa.Column("environment", sa.Text),
        sa.Column("workflow", sa.Text),
        sa.Column("called_workflow", sa.Text),
        sa.Column("actor_ids", sa.Text),
        sa.Column("runner_environment", sa.Text),
        sa.Column("visibility", sa.Text),
        sa.Column("events", sa.Text),
        sa.Column("conditions_key", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("max_ttl", sa.Integer),
        sa.Column("trust_registered", sa.Boolean, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("description", sa.Text),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("last_used_at", sa.BigInteger),
        sa.Column("derived_from", sa.String(36)),
        sa.PrimaryKeyConstraint("id", name="pk_oidc_trust_policies"),
        sa.UniqueConstraint("conditions_key", name="uq_oidc_trust_policies_conditions_key"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.agent_id"], name="fk_oidc_trust_policies_agent_id"),
        sa.ForeignKeyConstraint(
            ["derived_from"],
            ["oidc_trust_policies.id"],
            name="fk_oidc_trust_policies_derived_from",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("provider = 'github'", name="ck_oidc_trust_policies_provider"),
        # An empty name or a wildcard would trust every repository (A1).
        sa.CheckConstraint(
            "repository LIKE '_%/_%' AND repository NOT LIKE '%*%'", name="ck_oidc_trust_policies_repository"
        ),
        sa.CheckConstraint(
            "repository_key = lower(repository)", name="ck_oidc_trust_policies_repository_key"
        ),
        sa.CheckConstraint("branch <> '' AND tag <> ''", name="ck_oidc_trust_policies_ref"),
        sa.CheckConstraint("max_ttl > 0", name="ck_oidc_trust_policies_max_ttl"),
        sa.CheckConstraint(
            "agent_id IS NULL OR NOT trust_registered", name="ck_oidc_trust_policies_trust_registered"
        ),
    )
    for columns in (
        ("repository_key", "issuer"),
        ("agent_id",),
        ("derived_from",),
        ("created_at", "id"),
    ):
        op.create_index(f"ix_oidc_trust_policies_{'_'.join(columns)}", "oidc_trust_policies", list(columns))


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("oidc_trust_policies")
