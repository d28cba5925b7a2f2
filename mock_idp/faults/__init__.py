"""The faults that can be planned, for tokens, documents and responses, and when they happen."""
