"""The command line: `mock-idp serve`, `exec`, `env`, `run`, `act` and `attack`."""
