"""GitHub's OIDC issuer and Actions runner on a laptop: for tests, demos and development."""
