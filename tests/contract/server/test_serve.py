"""`sentryagent-idp serve` as a real process: startup, requests, draining and exit."""

import json
import os
import signal
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from kit.http import raw
from kit.processes import BIN, Served, clean_environment, run, wait_until
from kit.provider import AGENTS, EXCHANGE, POLICIES, REPOSITORY

PATIENCE = 30
ON_THEIR_WAY = 20


class Process(Served):
    """A provider in its own processes, as `serve` starts it in a folder."""

    def __init__(self, folder, issuer, *flags):
        environ = clean_environment(GITHUB_ISSUER=issuer, TRUSTED_PROXIES="127.0.0.1")
        super().__init__(folder / "log", environ, *flags, cwd=folder)
        self.folder = folder
        self.http = self.client()

    def __exit__(self, *_):
        super().__exit__()
        self.http.close()

    def members(self):
        """The ids of the group's live processes."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == self.process.pid and state != "Z":
                found.append(int(stat.parent.name))
        return found


@pytest.fixture
def serve(tmp_path, mock_idp):
    with ExitStack() as running:
        yield lambda *flags: running.enter_context(Process(tmp_path, mock_idp.issuer, *flags))


def _exchange(served, mock_idp):
    return served.http.post(EXCHANGE, json={"token": mock_idp.mint(audience=served.url)})


def _head(method, path, *headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


def _chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = _head("POST", EXCHANGE, "Content-Type: application/json", "Transfer-Encoding: chunked")


def test_whole_life_with_two_workers_on_sqlite(serve, mock_idp):
    """Two workers become ready, issue tokens, withstand garbage, and leave no process behind."""
    served = serve("--workers", "2")
    created = served.http.post(POLICIES, json={"repository": REPOSITORY}, headers=served.admin)
    assert created.status_code == 201, created.text

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: _exchange(served, mock_idp).status_code, range(24)))
    assert statuses == [200] * 24
    assert len(served.members()) >= 4
    assert len(served.workers()) == 2
    # All are forked from their parent and share its loaded modules.
    assert len({Path(f"/proc/{pid}/cmdline").read_text() for pid in served.members()}) == 1

    _check_bodies(served)
    _check_large_bodies(served)
    _check_oddities(served)
    command = (BIN / "sentryagent-idp", "serve", "--port", served.port)
    again = run(*command, env=served.environ, cwd=served.folder)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("sentryagent-idp: SENTRYAGENT_PORT")
    assert again.stderr.count("\n") == 1

    assert served.http.get("/ready").status_code == 200
    assert served.stop() == 0
    assert served.members() == []
    _check_log(served)


def _check_bodies(served):
    """A chunked body is read up to 32 KiB; a larger one is refused, not truncated."""
    good = _chunk(b'{"token":') + _chunk(b'"x"}') + b"0\r\n\r\n"
    cut = _chunk(b'{"token":"x"}') + _chunk(b" " * 40_000) + b"0\r\n\r\n"

    assert b" 401 " in raw(served.url, CHUNKED, good).split(b"\r\n")[0]
    assert b'"PAYLOAD_TOO_LARGE"' in raw(served.url, CHUNKED, cut)


def _check_large_bodies(served):
    """An admin's simulation may have 1 MiB; without a token it is a 401, and no other route takes as much."""
    claims = {"repository": REPOSITORY, "repository_id": "1", "repository_owner_id": "2"}
    run = {
        "claims": {**claims, "ref": "refs/heads/main", "event_name": "push", "repo_property_x": "x" * 2000}
    }
    body, simulate = {"runs": [run] * 100}, f"{POLICIES}/simulate"

    answer = served.http.post(simulate, json=body, headers=served.admin)
    assert (answer.status_code, len(answer.json()["data"])) == (200, 100), answer.text
    assert served.http.post(simulate, json=body).status_code == 401
    assert (
        served.http.post(simulate, json={**body, "x": " " * 2**20}, headers=served.admin).status_code == 413
    )
    assert served.http.post(POLICIES, json=body, headers=served.admin).status_code == 413


def _check_oddities(served):
    """HEAD requests, incomplete requests and garbage get a response or a closed connection, and do no harm."""
    head = raw(served.url, _head("HEAD", "/health"))
    assert head.startswith(b"HTTP/1.1 200")
    assert head.endswith(b"\r\n\r\n")
    for garbage in (
        b"\x16\x03\x01\x00\xff\x01\x00",
        b"GET\r\n\r\n",
        _head("POST", EXCHANGE, "Content-Length: x"),
        _head("GET", "/health", "A: " + "x" * 600_000),
    ):
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as connection:
            try:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                first = connection.recv(64)
            except OSError:  # the server may close the connection if it is not HTTP
                continue
        assert not first or b" 4" in first, first


def _check_log(served):
    """The log is JSON lines, without a token or an unexpected error."""
    entries = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert {"listening", "refused"} <= {entry["event"] for entry in entries}
    assert not [entry for entry in entries if entry["level"] == "error"], entries
    assert "eyJ" not in served.log.read_text()


def test_sigterm_lets_a_request_in_flight_finish(serve):
    """A registration that waits for the database at SIGTERM is still stored and answered with 201."""
    served = serve("--workers", "1")
    admin = served.admin
    database = sqlite3.connect(
        served.folder / "sentryagent.db", isolation_level=None, check_same_thread=False
    )
    database.execute("BEGIN IMMEDIATE")

    with ThreadPoolExecutor(1) as pool:
        body = {"email": "bot@octo-org.example"}
        waiting = pool.submit(served.http.post, AGENTS, json=body, headers=admin)
        wait_until(served.is_busy, "the request")
        served.process.terminate()
        wait_until(served.is_closed, "the end of the port")
        assert not waiting.done()
        database.execute("ROLLBACK")
        answer = waiting.result(PATIENCE)

    assert answer.status_code == 201
    # A second SIGTERM could arrive after the interpreter has removed its handlers.
    assert served.process.wait(PATIENCE) == 0
    assert served.members() == []
    assert database.execute("SELECT email FROM agents").fetchall() == [("bot@octo-org.example",)]
    database.close()


def test_sigterm_answers_every_request_on_its_way(serve):
    """Connections that are in the kernel's backlog at SIGTERM are still answered."""
    served = serve("--workers", "1")
    (worker,) = served.workers()
    with ExitStack() as opened:
        early = opened.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE))
        wait_until(served.is_busy, "the connection")
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda: _is_stopped(worker), "SIGSTOP")
        late = [
            opened.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE))
            for _ in range(ON_THEIR_WAY)
        ]
        for connection in (early, *late):
            connection.sendall(_head("GET", "/health"))
        served.process.terminate()
        wait_until(lambda: _has_pending(worker, signal.SIGTERM), "SIGTERM")
        os.kill(worker, signal.SIGCONT)
        answers = [connection.recv(12) for connection in (early, *late)]

    assert answers == [b"HTTP/1.1 200"] * (1 + ON_THEIR_WAY)
    assert served.process.wait(PATIENCE) == 0


def _is_stopped(pid):
    """Return whether every thread is stopped; a running one could take the next signal."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def _has_pending(pid, number):
    """Return whether the signal is pending for a stopped process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["ShdPnd"], 16) >> (number - 1) & 1


def test_sigterm_writes_what_was_counted(serve, mock_idp):
    """Refusals counted in the current minute are in the audit when the process has ended."""
    served = serve("--workers", "1")
    token = mock_idp.mint(audience=served.url)
    for _ in range(5):
        assert served.http.post(EXCHANGE, json={"token": token}).status_code == 403
    for _ in range(3):
        assert served.http.post(EXCHANGE, json={"token": "x"}).status_code == 401

    assert served.stop() == 0

    with closing(sqlite3.connect(served.folder / "sentryagent.db")) as database:
        rows = database.execute(
            "SELECT action, details FROM audit_log WHERE outcome = 'failure' ORDER BY sequence"
        ).fetchall()
    counts = [(action, json.loads(details).get("count")) for action, details in rows]
    assert counts[0] == ("token.refused", None)
    assert sorted(counts[1:]) == [("token.refused", 4), ("token.rejected", 3)]


def test_environment_of_a_laptop(tmp_path, mock_idp):
    """With odd NO_PROXY entries, a dead proxy and one unreachable issuer, the other issuer's runs get tokens."""
    served = Process(tmp_path, f"{mock_idp.issuer},http://127.0.0.1:1", "--workers", "1")
    served.environ |= {
        "NO_PROXY": "localhost,[::1],fd07:b51a:cc66:f0::/64",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "SENTRYAGENT_COLOUR": "s3cret",
    }
    with served:
        created = served.http.post(POLICIES, json={"repository": REPOSITORY}, headers=served.admin)
        assert created.json()["issuer"] == mock_idp.issuer
        assert _exchange(served, mock_idp).status_code == 200
        ready = served.http.get("/ready").json()
        assert [it["state"] for it in ready["issuers"].values()] == ["fresh", "missing"]
        page = wait_until(lambda: _age(served), "the gauge", process=served.process)
        assert page == "+Inf"
    warned = [json.loads(line) for line in served.log.read_text().splitlines() if "COLOUR" in line]
    assert [(it["level"], it["variable"]) for it in warned] == [("warning", "SENTRYAGENT_COLOUR")]
    assert "s3cret" not in served.log.read_text()


def _age(served):
    """The gauge of the issuer keys' age, or `None` until it is set."""
    lines = served.http.get("/metrics").text.splitlines()
    values = [line.split()[1] for line in lines if line.startswith("agentidp_issuer_keys_age_seconds ")]
    return next((value for value in values if value != "0.0"), None)
