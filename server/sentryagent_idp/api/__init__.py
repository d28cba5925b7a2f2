"""The HTTP face: one blueprint a resource."""

API = "/api/v1"
"""The path under which all resources are; what standards place at the root is there."""
