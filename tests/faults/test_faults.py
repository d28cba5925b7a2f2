"""Killed processes, a database that goes away, a full disk, a clock that jumps: under load, and nothing is lost or doubled."""

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
    """The others go on, a new worker takes its place, and the numbers at /metrics do not go back."""
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
    """Its successor too, before it has settled: the replica starts its workers anew, and needs nobody for it."""
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
    assert "starting all of them again" in replica.log.read_text()
    provider.assert_sound(load, f"{request.node.name}, ready after {down:.1f} s")


def test_the_background_process_is_killed(provider, request):
    """No client sees it, and its successor, or another replica's, seals what it left."""
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
    """All its processes at once, as when a machine loses its power; it starts again on what is in the database."""
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
    """Nothing but 503 while it is away, each within 10 s; tokens again within 10 s of its return, without a restart."""
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
    """SQLite has no room: 503 and no token without its record; with room again it goes on by itself."""
    provider = provide(f"sqlite:///{small_disk.folder}/provider.db")
    provider.assert_sound(_filled(provider, small_disk), request.node.name)


def _filled(provider, disk):
    """The load on a provider whose disk is full for a while."""
    with provider.load() as load:
        load.run(SOME)
        disk.fill()
        load.wait_for(20, since=time.monotonic(), statuses=(503,))
        disk.free()
        load.run(SOME)
    return load


@pytest.mark.postgres
def test_the_disk_of_postgresql_is_full(provide, small_disk, postgres_cluster, request):
    """The same where a table cannot grow."""
    with postgres_cluster.database_in(small_disk.folder) as url:
        provider = provide(url, workers=1)
        provider.assert_sound(_filled(provider, small_disk), request.node.name)
        for replica in provider.replicas:
            replica.stop()


@pytest.mark.parametrize("offset", [3600, -3600])
def test_githubs_clock_jumps(provider, mock_idp, offset, request):
    """Tokens of another hour are refused while it lasts; the next good one is good."""
    reason = "not_yet_valid" if offset > 0 else "expired"
    with provider.load() as load:
        load.run(SOME)
        mock_idp.state.clock.shift(offset)
        load.wait_for(20, since=time.monotonic(), statuses=(401,))
        mock_idp.state.clock.shift(0)
        load.run(SOME)

    provider.assert_sound(load, request.node.name, reasons={reason})
