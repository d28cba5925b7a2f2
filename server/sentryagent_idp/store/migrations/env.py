"""Alembic's entry point: runs the steps in the transaction that `sentryagent_idp.store.schema` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
