"""Alembic's entry: runs the steps in the transaction that `sentryagent_idp.store.schema` has opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
