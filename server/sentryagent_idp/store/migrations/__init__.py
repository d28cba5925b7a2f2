"""The schema's history, one numbered step a table; `sentryagent_idp.store.schema` runs it."""
