"""Load over a long time: no errors and no memory leak. `make soak` takes ten minutes per database, `make test` a moment."""

import os
import time

import pytest

pytestmark = pytest.mark.xdist_group("faults")

SECONDS = float(os.environ.get("SENTRYAGENT_SOAK_SECONDS", "1"))
ROUND = 300
MOST_MEGABYTES = 10
"""The growth allowed for all processes in the second half; in the first, caches fill and threads start."""


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_nothing_grows_and_nothing_fails(engine, request, provide, tmp_path):
    """Every exchange succeeds, the processes' memory stops growing, and the audit chain is valid."""
    url = f"sqlite:///{tmp_path}/soak.db" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    provider = provide(url, workers=2)
    exchanges, _ = _load(provider, SECONDS / 2)
    before = provider.replicas[0].megabytes()

    more, last = _load(provider, SECONDS / 2)

    grown = provider.replicas[0].megabytes() - before
    assert grown < MOST_MEGABYTES, f"{grown:.1f} MB in {more} exchanges, after {exchanges}"
    provider.assert_sound(
        last, f"{request.node.name}: {exchanges} exchanges, then {more}, {grown:+.1f} MB; the last {ROUND}"
    )


def _load(provider, seconds):
    """Load for some time, at least one round; return the number of exchanges and the last round."""
    exchanges, deadline = 0, time.monotonic() + seconds
    while True:
        with provider.load() as load:
            load.run(ROUND)
        assert load.outcomes().keys() == {(200, None)}
        exchanges += ROUND
        if time.monotonic() >= deadline:
            return exchanges, load
