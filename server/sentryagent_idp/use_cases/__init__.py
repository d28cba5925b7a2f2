"""What the provider does for its callers, one module a subject; the database comes in through `sentryagent_idp.ports`."""
