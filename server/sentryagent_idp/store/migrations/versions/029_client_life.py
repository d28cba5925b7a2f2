"""Admin clients get an expiry, a previous secret and a last use; policies get an index on the repository id."""

import sqlalchemy as sa
from alembic import op

revision = "029"
down_revision = "028"

_INDEX = "ix_oidc_trust_policies_repository_id_issuer"


def upgrade() -> None:
    """Add the columns and the index; clients of earlier versions have one secret and never expire."""
    for name in ("expires_at", "old_secret_until", "last_used_at"):
        op.add_column("admin_clients", sa.Column(name, sa.BigInteger))
    op.add_column("admin_clients", sa.Column("old_secret_hash", sa.Text))
    op.create_index(_INDEX, "oidc_trust_policies", ["repository_id", "issuer"])


def downgrade() -> None:
    """Drop the columns and the index, and delete the clients that would no longer expire."""
    op.drop_index(_INDEX, "oidc_trust_policies")
    op.execute("DELETE FROM admin_clients WHERE expires_at IS NOT NULL")
    for name in ("expires_at", "old_secret_hash", "old_secret_until", "last_used_at"):
        op.drop_column("admin_clients", name)
