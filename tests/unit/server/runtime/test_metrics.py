"""Gauges of processes that end: each process here is a real one, since the library counts by process."""

import os
import subprocess
import sys

WORKER = """
import sys
from sentryagent_idp.runtime.metrics import Metrics
metrics = Metrics()
metrics.issuer_keys(float(sys.argv[1]))
metrics.refused("FORBIDDEN")
sys.stdout.write(metrics.page().decode())
"""


def test_a_dead_worker_leaves_its_counts_and_not_its_state(tmp_path):
    """The age of the keys that a dead worker held would fire an alert for ever; what it counted stays counted."""

    def worker(age):
        answer = subprocess.run(
            [sys.executable, "-c", WORKER, age],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return [line for line in answer.stdout.splitlines() if not line.startswith("#")]

    assert "agentidp_issuer_keys_age_seconds 90000.0" in worker("90000")
    page = worker("5")

    assert "agentidp_issuer_keys_age_seconds 5.0" in page
    assert 'agentidp_refusals_total{code="FORBIDDEN",reason=""} 2.0' in page
