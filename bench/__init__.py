"""The benchmark: the exchange compared with what other servers do with a signed token (`make bench`)."""
