"""The HTTP face: one blueprint a resource."""
