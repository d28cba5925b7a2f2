"""What GitHub sends: ID tokens, and the keys that sign them."""
