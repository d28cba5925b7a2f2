"""Trust policies can require values of a repository's custom properties."""

import sqlalchemy as sa
from alembic import op

revision = "026"
down_revision = "025"


def upgrade() -> None:
    """Add the condition, a map of lists stored as JSON text; no policy of an earlier version has it."""
    op.add_column("oidc_trust_policies", sa.Column("properties", sa.Text))


def downgrade() -> None:
    """Drop the condition and the policies that have it: without it they would allow more runs."""
    op.execute("DELETE FROM oidc_trust_policies WHERE properties IS NOT NULL")
    op.drop_column("oidc_trust_policies", "properties")
