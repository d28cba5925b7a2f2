"""What the provider knows and decides, without I/O."""
