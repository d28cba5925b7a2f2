"""The history of the schema in numbered steps, run by `sentryagent_idp.store.schema`."""
