"""The command line: `mock-idp serve`, `env`, `run` and `attack`."""
