"""The attack pack for verifiers: the catalogue, the run, the report."""
