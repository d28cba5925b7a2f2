"""GitHub's ID tokens, and the public keys that verify them."""
