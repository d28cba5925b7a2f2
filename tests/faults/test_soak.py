"""Load for a long time: no error, and no memory that only grows. `make soak` takes ten minutes, `make test` a moment."""

import os
import time

import pytest

pytestmark = pytest.mark.xdist_group("faults")

SECONDS = float(os.environ.get("SENTRYAGENT_SOAK_SECONDS", "1"))
ROUND = 300
MOST_MEGABYTES = 20


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_nothing_grows_and_nothing_fails(engine, request, provide, tmp_path):
    """Every exchange succeeds, all workers together grow by less than 20 MB, and the audit's chain is whole."""
    url = f"sqlite:///{tmp_path}/soak.db" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    provider = provide(url, workers=2)
    _round(provider)
    _round(provider)
    before, deadline, rounds = provider.replicas[0].megabytes(), time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline:
        load = _round(provider)
        rounds += 1

    grown = provider.replicas[0].megabytes() - before
    assert rounds > 0
    assert grown < MOST_MEGABYTES, f"{grown:.1f} MB after {rounds * ROUND} exchanges"
    provider.assert_sound(
        load, f"{request.node.name}: {rounds * ROUND} exchanges, {grown:+.1f} MB; the last {ROUND}"
    )


def _round(provider):
    with provider.load() as load:
        load.run(ROUND)
    assert load.outcomes().keys() == {(200, None)}
    return load
