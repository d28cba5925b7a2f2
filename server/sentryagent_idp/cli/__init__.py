"""The command `sentryagent-idp`."""
