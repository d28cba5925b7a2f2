"""The provider's data and decisions, without I/O."""
