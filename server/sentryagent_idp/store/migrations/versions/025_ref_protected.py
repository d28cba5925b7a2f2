"""Trust policies can require a protected ref."""

import sqlalchemy as sa
from alembic import op

revision = "025"
down_revision = "024"


def upgrade() -> None:
    """Add the condition; no policy of an earlier version has it."""
    op.add_column("oidc_trust_policies", sa.Column("ref_protected", sa.Boolean))


def downgrade() -> None:
    """Drop the condition and the policies that have it: without it they would allow more runs."""
    op.execute("DELETE FROM oidc_trust_policies WHERE ref_protected IS NOT NULL")
    op.drop_column("oidc_trust_policies", "ref_protected")
