"""Admin clients, with hashed secrets."""

import sqlalchemy as sa
from alembic import op

revision = "023"
down_revision = "022"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "admin_clients",
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("secret_hash", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("client_id", name="pk_admin_clients"),
        # Tokens of a client with another prefix would not be accepted as an administrator's.
        sa.CheckConstraint("client_id LIKE 'admin-%'", name="ck_admin_clients_client_id"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("admin_clients")
