"""The schema's history, one numbered step a table; `server.store.schema` runs it."""
