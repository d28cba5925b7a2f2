"""What the provider does for its callers, one module a subject; the world comes in through `sentryagent_idp.ports`."""
