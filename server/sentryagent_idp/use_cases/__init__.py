"""The provider's use cases, one module per subject; they reach the database through `sentryagent_idp.ports`."""
