"""The benchmark: the exchange side by side with what others do with a signed token (`make bench`)."""
