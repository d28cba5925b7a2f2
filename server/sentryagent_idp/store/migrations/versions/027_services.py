"""Services, the scopes that trust policies grant at them, and the clients that introspect their tokens."""

import sqlalchemy as sa
from alembic import op

revision = "027"
down_revision = "026"

_ADMIN = "client_id LIKE 'admin-%'"
_ADMIN_OR_SERVICE = (
    "(client_id LIKE 'admin-%' AND service IS NULL) OR (client_id LIKE 'service-%' AND service IS NOT NULL)"
)


def upgrade() -> None:
    """Create the tables; earlier versions have no policies with grants, and no clients of services."""
    op.create_table(
        "services",
        sa.Column("service_id", sa.String(36), nullable=False),
        sa.Column("identifier", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("max_ttl", sa.Integer),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("service_id", name="pk_services"),
        sa.UniqueConstraint("identifier", name="uq_services_identifier"),
        sa.CheckConstraint("max_ttl > 0", name="ck_services_max_ttl"),
    )
    op.create_index("ix_services_created_at_service_id", "services", ["created_at", "service_id"])
    op.add_column("oidc_trust_policies", sa.Column("grants", sa.Text, nullable=False, server_default="[]"))
    op.create_table(
        "granted_services",
        sa.Column("policy_id", sa.String(36), nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("policy_id", "service", name="pk_granted_services"),
        sa.ForeignKeyConstraint(
            ["policy_id"],
            ["oidc_trust_policies.id"],
            name="fk_granted_services_policy_id",
            ondelete="CASCADE",
        ),
        # A granted service cannot be deleted; otherwise a new service with its identifier would inherit the grants.
        sa.ForeignKeyConstraint(["service"], ["services.identifier"], name="fk_granted_services_service"),
    )
    op.create_index("ix_granted_services_service", "granted_services", ["service"])
    op.add_column("admin_clients", sa.Column("service", sa.Text))
    _check_clients(_ADMIN_OR_SERVICE)
    op.create_index("ix_admin_clients_service", "admin_clients", ["service"])


def downgrade() -> None:
    """Drop the tables, and delete the services' clients and the policies that have only grants."""
    op.execute("DELETE FROM admin_clients WHERE service IS NOT NULL")
    op.drop_index("ix_admin_clients_service", "admin_clients")
    _check_clients(_ADMIN)
    op.drop_column("admin_clients", "service")
    op.drop_table("granted_services")
    op.execute("DELETE FROM oidc_trust_policies WHERE scopes = '[]'")
    op.drop_column("oidc_trust_policies", "grants")
    op.drop_table("services")


def _check_clients(rule: str) -> None:
    """Replace the constraint on client ids: their prefix tells administrators and services apart."""
    name = "ck_admin_clients_client_id"
    with op.batch_alter_table("admin_clients", copy_from=_clients(name)) as table:
        table.drop_constraint(name, type_="check")
        table.create_check_constraint(name, rule)


def _clients(check: str) -> sa.Table:
    """Return the current table, since SQLite changes constraints only by copying and does not reflect this one."""
    return sa.Table(
        "admin_clients",
        sa.MetaData(),
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("secret_hash", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("service", sa.Text),
        sa.PrimaryKeyConstraint("client_id", name="pk_admin_clients"),
        sa.CheckConstraint(_ADMIN, name=check),
    )
