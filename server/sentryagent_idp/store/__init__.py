"""The database behind `sentryagent_idp.ports`: SQLAlchemy Core on SQLite and PostgreSQL, one module per table."""
