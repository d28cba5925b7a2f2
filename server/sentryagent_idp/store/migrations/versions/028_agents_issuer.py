"""Agents record the issuer of the repository that registered them: different GitHubs assign the same ids."""

import sqlalchemy as sa
from alembic import op

revision = "028"
down_revision = "027"


def upgrade() -> None:
    """Add the column; existing agents get the issuer of the repository's policies, if these have only one."""
    op.add_column("agents", sa.Column("registered_by_issuer", sa.Text))
    op.execute(
        "UPDATE agents SET registered_by_issuer = ("
        "SELECT min(issuer) FROM oidc_trust_policies WHERE repository_key = lower(registered_by_repository) "
        "HAVING count(DISTINCT issuer) = 1) WHERE registered_by_repository IS NOT NULL"
    )


def downgrade() -> None:
    """Drop the column: with one issuer, the ids alone decide."""
    op.drop_column("agents", "registered_by_issuer")
