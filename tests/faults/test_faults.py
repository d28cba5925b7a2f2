"""Under load, killed processes, a lost database, a full disk or a clock jump neither lose nor duplicate anything."""

import os
import signal
import time

import pytest

from kit.processes import wait_until

pytestmark = pytest.mark.xdist_group("faults")

SOME = 60
MORE = 100
ISSUED = 'agentidp_tokens_issued_total{outcome="success"}'


def test_a_worker_is_killed(provider, request):
    """The other workers go on, a new worker replaces the killed one, and the counters at /metrics do not decrease."""
    with provider.load() as load:
        load.run(SOME)
        victim = provider.replicas[0].workers()[0]
        before = provider.numbers()[ISSUED]
        os.kill(victim, signal.SIGKILL)
        load.run(MORE)
        provider.replicas[0].wait_until_ready()

    assert provider.numbers()[ISSUED] >= before > 0
    assert victim not in provider.replicas[0].workers()
    provider.assert_sound(load, request.node.name)


def test_the_same_worker_is_killed_twice(provider, request):
    """If a worker's replacement is killed right after its start, the replica restarts all its workers by itself."""
    replica = provider.replicas[0]
    with provider.load() as load:
        load.run(SOME)
        successor = replica.replaced(replica.workers()[0])
        began = time.monotonic()
        replica.replaced(successor)
        replica.wait_until_ready()
        down = time.monotonic() - began
        load.run(MORE)

    assert down < 10
    assert replica.process.poll() is None
    assert "restarting all workers" in replica.log.read_text()
    provider.assert_sound(load, f"{request.node.name}, ready after {down:.1f} s")


def test_the_background_process_is_killed(provider, request):
    """No client notices, and the restarted process, or another replica's, seals the remaining records."""
    replica = provider.replicas[0]
    with provider.load() as load:
        load.run(SOME)
        victim = replica.background()
        os.kill(victim, signal.SIGKILL)
        load.run(MORE)
        wait_until(
            lambda: replica.background() not in {None, victim}, "its successor", log=replica.log.read_text
        )

    assert load.outcomes().keys() == {(200, None)}
    provider.assert_sound(load, request.node.name)


def test_a_replica_is_killed(provider, request):
    """All its processes are killed, as in a power failure; it starts again from the data in the database."""
    replica = provider.replicas[-1]
    with provider.load() as load:
        load.run(SOME)
        replica.kill()
        if len(provider.replicas) > 1:
            load.run(SOME)
        replica.start()
        replica.wait_until_ready()
        load.run(MORE)

    provider.assert_sound(load, request.node.name)


@pytest.mark.postgres
def test_postgresql_is_killed(provide, postgres_cluster, postgres_url, request):
    """While PostgreSQL is down, each response is a 503 within 10 s; within 10 s of its return, tokens are issued again."""
    provider = provide(postgres_url, replicas=2, workers=1)
    processes = [replica.process.pid for replica in provider.replicas]
    with provider.load() as load:
        load.run(SOME)
        postgres_cluster.kill()
        gone = time.monotonic()
        try:
            load.wait_for(20, since=gone, statuses=(503,))
        finally:
            postgres_cluster.start()
        back = load.run(SOME)

    first = min(it.at for it in load.attempts(back) if it.status == 200)
    assert first - back < 10
    assert max(it.seconds for it in load.attempts(gone)) < 10
    assert [replica.process.pid for replica in provider.replicas] == processes
    assert all(replica.process.poll() is None for replica in provider.replicas)
    provider.assert_sound(load, request.node.name)


def test_the_disk_is_full(provide, small_disk, request):
    """While SQLite has no space, requests get 503 and no token without its record; with space, the provider recovers."""
    provider = provide(f"sqlite:///{small_disk.folder}/provider.db")
    provider.assert_sound(_filled(provider, small_disk), request.node.name)


def _filled(provider, disk):
    """Load a provider whose disk is full for a while, and return the load."""
    with provider.load() as load:
        load.run(SOME)
        disk.fill()
        load.wait_for(20, since=time.monotonic(), statuses=(503,))
        disk.free()
        load.run(SOME)
    return load


@pytest.mark.postgres
def test_the_disk_of_postgresql_is_full(provide, small_disk, postgres_cluster, request):
    """The same on PostgreSQL, when a table cannot grow."""
    with postgres_cluster.database_in(small_disk.folder) as url:
        provider = provide(url, workers=1)
        provider.assert_sound(_filled(provider, small_disk), request.node.name)
        for replica in provider.replicas:
            replica.stop()


@pytest.mark.parametrize("offset", [3600, -3600])
def test_githubs_clock_jumps(provider, mock_idp, offset, request):
    """While GitHub's clock is an hour off, its tokens are refused; after that, tokens are accepted again."""
    reason = "not_yet_valid" if offset > 0 else "expired"
    with provider.load() as load:
        load.run(SOME)
        mock_idp.state.clock.shift(offset)
        load.wait_for(20, since=time.monotonic(), statuses=(401,))
        mock_idp.state.clock.shift(0)
        load.run(SOME)

    provider.assert_sound(load, request.node.name, reasons={reason})
