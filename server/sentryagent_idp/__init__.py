"""The identity provider, which exchanges GitHub's ID tokens of workflow runs for short-lived access tokens."""
