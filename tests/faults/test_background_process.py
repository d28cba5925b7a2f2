"""The background process: it runs all background tasks, is restarted, and ends with the replica but not earlier."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from kit.processes import Served, clean_environment, free_port, wait_until
from kit.provider import AGENTS

pytestmark = pytest.mark.xdist_group("faults")

PATIENCE_SECONDS = 30
TASKS = """
import os
from sentryagent_idp import serve
from sentryagent_idp.config import Settings

start = serve.periodic.start

def tell(tasks, wait, **options):
    for task in tasks:
        name = task.__qualname__ if hasattr(task, "__qualname__") else task.func.__name__
        os.write(1, f"{os.getpid()} {name}\\n".encode())  # in one piece, as other processes write there too
    return start(tasks, wait, **options)

serve.periodic.start = tell
serve.serve(Settings.from_environ(os.environ, {"workers": "2"}))
"""
LAST_OF_A_WORKER = "end_without_supervisor"
BACKGROUND_TASKS = ("Housekeeping.run", "RetiredKeys.run", "Sealer.run", "ChainWatch.run")


def test_workers_have_no_background_task_that_needs_none_of_their_memory(tmp_path):
    """Only the background process purges and checks the chain, which would delay a worker's exchanges for half a second."""
    environ = clean_environment(
        PORT=free_port(), DATABASE_URL=f"sqlite:///{tmp_path}/provider.db", GITHUB_ISSUER="http://127.0.0.1:9"
    )
    processes = defaultdict(list)
    with subprocess.Popen(
        [sys.executable, "-c", TASKS], env=environ, stdout=subprocess.PIPE, text=True
    ) as served:
        for line in served.stdout:
            pid, task = line.split()
            processes[task].append(pid)
            if len(processes[LAST_OF_A_WORKER]) == 2 and processes[BACKGROUND_TASKS[-1]]:
                served.terminate()

    workers = set(processes["CountedRefusals.run"])
    assert set(processes[LAST_OF_A_WORKER]) == workers
    assert len(workers) == 2
    (background,) = {tuple(processes[task]) for task in BACKGROUND_TASKS}
    assert len(background) == 1
    assert workers.isdisjoint(background)


class Replica(Served):
    """A provider with one worker on SQLite."""

    def __init__(self, folder):
        self.database = folder / "provider.db"
        environ = clean_environment(
            DATABASE_URL=f"sqlite:///{self.database}", GITHUB_ISSUER="http://127.0.0.1:9"
        )
        super().__init__(folder / "log", environ, "--workers", "1")

    def execute(self, statement):
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(statement)

    def gauges(self):
        with self.client() as http:
            lines = http.get("/metrics").text.splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line.startswith("agentidp_"))

    def shows(self, valid):
        wait_until(
            lambda: self.gauges()["agentidp_audit_chain_valid"] == valid,
            f"a chain of {valid}",
            log=self.log.read_text,
        )

    def background_other_than(self, former):
        return wait_until(
            lambda: (pid := self.background()) != former and pid, "the background process", pause=0.01
        )

    def deaths(self):
        """The exit codes of the background processes that died, from the log."""
        entries = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [it["exitCode"] for it in entries if it["event"].startswith("the background process died")]


@pytest.fixture
def replica(tmp_path):
    with Replica(tmp_path) as served:
        yield served


def test_it_is_started_again_and_its_gauges_are_those_of_the_live_one(replica):
    """After a kill, the restarted process reports a broken chain at once, and a repaired chain as valid again."""
    replica.command("admin-token")
    replica.execute("UPDATE audit_log SET actor = 'mallory' WHERE sequence = 1")
    first = replica.background_other_than(None)
    os.kill(first, signal.SIGKILL)
    second = replica.background_other_than(first)
    replica.shows("0.0")

    os.kill(second, signal.SIGSTOP)
    original = "(SELECT actor FROM audit_log WHERE sequence = 2)"
    replica.execute(f"UPDATE audit_log SET actor = {original} WHERE sequence = 1")
    os.kill(second, signal.SIGKILL)
    third = replica.background_other_than(second)
    replica.shows("1.0")

    assert third not in {first, second}
    assert replica.deaths() == [-signal.SIGKILL] * 2
    wait_until(lambda: replica.gauges()["agentidp_ready"] == "1.0", "the look at /ready")


def test_workers_say_how_many_records_wait_for_a_process_that_hangs(replica):
    """A hanging background process cannot report that it no longer seals records, so the workers do; an alert needs it."""
    background = replica.background_other_than(None)
    replica.command("admin-token")
    os.kill(background, signal.SIGSTOP)
    replica.execute("DELETE FROM audit_seals WHERE seal = (SELECT max(seal) FROM audit_seals)")

    wait_until(lambda: replica.gauges()["agentidp_audit_unsealed_records"] == "1.0", "the unsealed record")


def test_it_ends_with_a_supervisor_that_is_killed(replica):
    """Otherwise, every restart of the replica would leave another background process running for ever."""
    background = replica.background_other_than(None)
    os.kill(replica.process.pid, signal.SIGKILL)
    replica.process.wait()
    wait_until(lambda: not _is_alive(background), "the end of the background process")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_it_until_the_last_request_is_answered(replica, number):
    """The background process survives a signal to every process, as from Ctrl-C or systemd's `KillMode=control-group`."""
    background = replica.background_other_than(None)
    admin = replica.admin
    with closing(
        sqlite3.connect(replica.database, isolation_level=None, check_same_thread=False)
    ) as database:
        database.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool, replica.client() as http:
            waiting = pool.submit(http.post, AGENTS, json={"email": "bot@octo-org.example"}, headers=admin)
            wait_until(replica.is_busy, "the request")
            os.kill(background, number)
            replica.process.terminate()
            wait_until(replica.is_closed, "the end of the port")
            assert not waiting.done()
            assert replica.background() == background
            assert _is_alive(background)
            database.execute("ROLLBACK")
            assert waiting.result(PATIENCE_SECONDS).status_code == 201

    assert replica.process.wait(PATIENCE_SECONDS) == 0
    assert not _is_alive(background)
    assert replica.deaths() == []


def _is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
