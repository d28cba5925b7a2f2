"""`sentryagent-idp serve` as a real process: ready, answering, drained, gone."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from mock_idp.job import Job
from mock_idp.server import MockIdp

COMMAND = [sys.executable, "-m", "sentryagent_idp.cli.main"]
PATIENCE = 30


class Served:
    """A provider in processes of its own, on a free port."""

    def __init__(self, folder, issuer, *flags):
        self.folder = folder
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SENTRYAGENT_")}
        self.environ = {
            **environ,
            "SENTRYAGENT_GITHUB_ISSUER": issuer,
            "SENTRYAGENT_TRUSTED_PROXIES": "127.0.0.1",
        }
        self.log = (folder / "log").open("w+b")
        self.terminated = False
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(self.port), *flags],
            cwd=folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=self.log,
            start_new_session=True,
        )
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE)
        self._wait_until_ready()

    def _wait_until_ready(self):
        transport = httpx.HTTPTransport(retries=0)
        with httpx.Client(base_url=self.url, transport=transport, trust_env=False) as client:
            pause = threading.Event()
            for _ in range(PATIENCE * 20):
                assert self.process.poll() is None, self.logged()
                try:
                    if client.get("/ready").status_code == 200:
                        return
                except httpx.TransportError:
                    pause.wait(0.05)  # for a process, not for time: nothing else tells that it listens
        pytest.fail(self.logged())

    def command(self, *arguments, port=None):
        environ = {**self.environ, **({"SENTRYAGENT_PORT": str(port)} if port else {})}
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def admin(self):
        # Another port than the server's: the issuer is what `serve` wrote down.
        minted = self.command("admin-token", port=3999)
        assert minted.returncode == 0, minted.stderr
        return {"Authorization": f"Bearer {minted.stdout.strip()}"}

    def logged(self):
        return (self.folder / "log").read_text()

    def raw(self, *parts):
        """Send these bytes over a connection of its own, and read until the other side ends it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            for part in parts:
                connection.sendall(part)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        return received

    def members(self):
        """The process ids of the whole group, the dead left out."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == self.process.pid and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def terminate(self):
        """Send SIGTERM, once: a second one could meet the interpreter when it has taken its handlers down."""
        if not self.terminated:
            self.terminated = True
            self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """End it whatever happens; returns its exit code."""
        self.http.close()
        self.terminate()
        try:
            return self.process.wait(PATIENCE)
        finally:
            for pid in self.members():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
            self.process.stdout.close()
            self.log.close()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def mock(github_keys):
    with MockIdp(ring=github_keys) as running:
        yield running


@pytest.fixture
def serve(tmp_path, mock):
    started = []

    def start(*flags):
        started.append(Served(tmp_path, mock.issuer, *flags))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.stop()


def _github_token(served, mock):
    answer = httpx.post(f"{mock.url}/_mock/token", json={"claims": {"aud": served.url}}, trust_env=False)
    return answer.json()["token"]


def _exchange(served, mock, **body):
    token = _github_token(served, mock)
    return served.http.post("/api/v1/oidc/token", json={"token": token, **body})


def _head(method, path, *headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


def _chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = _head("POST", "/api/v1/oidc/token", "Content-Type: application/json", "Transfer-Encoding: chunked")


def test_whole_life_with_two_workers_on_sqlite(serve, mock):
    """It gets ready, answers the main job in both workers, shrugs off garbage, and leaves nothing behind."""
    served = serve("--workers", "2")
    admin = served.admin()
    repository = Job().repository
    created = served.http.post("/api/v1/oidc/trust-policies", json={"repository": repository}, headers=admin)
    assert created.status_code == 201, created.text

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: _exchange(served, mock).status_code, range(24)))
    assert statuses == [200] * 24
    assert len(served.members()) >= 3
    # Workers are copies of their parent, with which they share what is loaded.
    assert len({Path(f"/proc/{pid}/cmdline").read_text() for pid in served.members()}) == 1

    _check_bodies(served)
    _check_oddities(served)
    again = served.command("serve", "--port", str(served.port))
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("sentryagent-idp: SENTRYAGENT_PORT")
    assert again.stderr.count("\n") == 1

    assert served.http.get("/ready").status_code == 200
    assert served.stop() == 0
    assert served.members() == []
    _check_log(served)


def _check_bodies(served):
    """A chunked body is read up to 32 KiB, and refused, not cut, beyond."""
    good = _chunk(b'{"token":') + _chunk(b'"x"}') + b"0\r\n\r\n"
    cut = _chunk(b'{"token":"x"}') + _chunk(b" " * 40_000) + b"0\r\n\r\n"

    assert b" 401 " in served.raw(CHUNKED, good).split(b"\r\n")[0]
    assert b'"PAYLOAD_TOO_LARGE"' in served.raw(CHUNKED, cut)


def _check_oddities(served):
    """Heads, halves and garbage get an answer or an end, and do no harm."""
    head = served.raw(_head("HEAD", "/health"))
    assert head.startswith(b"HTTP/1.1 200")
    assert head.endswith(b"\r\n\r\n")
    for garbage in (
        b"\x16\x03\x01\x00\xff\x01\x00",
        b"GET\r\n\r\n",
        _head("POST", "/api/v1/oidc/token", "Content-Length: x"),
        _head("GET", "/health", "A: " + "x" * 600_000),
    ):
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as connection:
            try:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                first = connection.recv(64)
            except OSError:  # it may hang up on what is no HTTP
                continue
        assert not first or b" 4" in first, first


def _check_log(served):
    """The log is JSON lines, without a token and without an unexpected error."""
    entries = [json.loads(line) for line in served.logged().splitlines()]
    assert {"listening", "refused"} <= {entry["event"] for entry in entries}
    assert not [entry for entry in entries if entry["level"] == "error"], entries
    assert "eyJ" not in served.logged()


def test_sigterm_lets_a_request_in_flight_finish(serve, mock):
    """A registration that waits for the database when SIGTERM comes is answered 201, and is there."""
    served = serve("--workers", "1")
    admin = served.admin()
    database = sqlite3.connect(
        served.folder / "sentryagent.db", isolation_level=None, check_same_thread=False
    )
    database.execute("BEGIN IMMEDIATE")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            served.http.post, "/api/v1/agents", json={"email": "bot@octo-org.example"}, headers=admin
        )
        _wait_until_busy(served)
        served.terminate()
        _wait_until_closed(served)
        assert not waiting.done()
        database.execute("ROLLBACK")
        answer = waiting.result(PATIENCE)

    assert answer.status_code == 201
    assert served.stop() == 0
    assert served.members() == []
    assert database.execute("SELECT email FROM agents").fetchall() == [("bot@octo-org.example",)]
    database.close()


def _wait_until_busy(served):
    """Wait until the request has arrived: the connection is accepted and its bytes are read."""
    pause = threading.Event()
    port = f"{served.port:04X}"
    for _ in range(PATIENCE * 20):
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        established = [row for row in rows if row[1].endswith(f":{port}") and row[3] == "01"]
        if established and all(row[4].endswith(":00000000") for row in established):
            return
        pause.wait(0.05)
    pytest.fail("the request did not arrive")


def _wait_until_closed(served):
    """Wait until the port takes no connection any more."""
    pause = threading.Event()
    for _ in range(PATIENCE * 20):
        try:
            socket.create_connection(("127.0.0.1", served.port), timeout=1).close()
        except OSError:
            return
        pause.wait(0.05)
    pytest.fail("the port is still open")


def test_sigterm_writes_what_was_counted(serve, mock):
    """Refusals of a minute that is not over are in the audit when the process has ended."""
    served = serve("--workers", "1")
    token = _github_token(served, mock)
    for _ in range(5):
        assert served.http.post("/api/v1/oidc/token", json={"token": token}).status_code == 403
    for _ in range(3):
        assert served.http.post("/api/v1/oidc/token", json={"token": "x"}).status_code == 401

    assert served.stop() == 0

    with closing(sqlite3.connect(served.folder / "sentryagent.db")) as database:
        rows = database.execute(
            "SELECT action, details FROM audit_log WHERE outcome = 'failure' ORDER BY sequence"
        ).fetchall()
    counts = [(action, json.loads(details).get("count")) for action, details in rows]
    assert counts[0] == ("token.refused", None)
    assert sorted(counts[1:]) == [("token.refused", 4), ("token.rejected", 3)]
