"""Metrics of processes that have ended; each test process is real, because the library counts by process."""

import os
import sys

from kit.processes import output_of

WORKER = """
import sys
from sentryagent_idp.runtime.metrics import Metrics
metrics = Metrics()
metrics.issuer_keys(float(sys.argv[1]))
metrics.refused("FORBIDDEN")
sys.stdout.write(metrics.page().decode())
"""


def test_a_dead_worker_leaves_its_counts_and_not_its_state(tmp_path):
    """A dead worker's key age is dropped, or it would trigger an alert forever; its counters are kept."""

    def worker(age):
        environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        page = output_of(sys.executable, "-c", WORKER, age, env=environ)
        return [line for line in page.splitlines() if not line.startswith("#")]

    assert "agentidp_issuer_keys_age_seconds 90000.0" in worker("90000")
    page = worker("5")

    assert "agentidp_issuer_keys_age_seconds 5.0" in page
    assert 'agentidp_refusals_total{code="FORBIDDEN",reason=""} 2.0' in page
