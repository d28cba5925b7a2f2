"""The HTTP API: one blueprint per resource."""

API = "/api/v1"
"""The path prefix of all resources; paths that standards define are at the root."""
