"""The database behind `server.ports`: SQLAlchemy Core on SQLite and PostgreSQL, one module a table."""
