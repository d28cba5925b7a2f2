"""Providers with one or more replicas, clients that load them, and the invariants that must hold after each fault.

`make test` uses just enough load for each test; `make faults` uses twenty times as much and prints figures.
"""

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import NullPool, create_engine, text

from kit.processes import PATIENCE_SECONDS, Served, clean_environment, output_of, run, wait_until
from kit.tokens import claims_of
from mock_idp.server import MockIdp

REPOSITORY = "octo-org/hello-agent"
ISSUER = "https://idp.example.com"
CLIENTS = 8
SCALE = int(os.environ.get("SENTRYAGENT_FAULT_LOAD", "1"))
LATELY = "timestamp > (SELECT MAX(timestamp) FROM audit_log) - 240000000"
"""The audit records of the last 4 minutes; a GitHub token is valid for 5, and its use is kept for longer."""


@dataclass(frozen=True)
class Attempt:
    """One try of an exchange: its end, its duration in seconds and its status, which is 0 for a broken connection."""

    at: float
    seconds: float
    status: int
    reason: str | None = None


@dataclass
class Job:
    """One GitHub token, whose exchange is tried until it succeeds or is refused."""

    token: str
    attempts: list[Attempt] = field(default_factory=list)
    issued: str | None = None

    @property
    def jti(self):
        return claims_of(self.token)["jti"]


class Load:
    """Clients that exchange tokens at all replicas in turn, and retry after a 503 or a broken connection.

    Each client waits `pause` seconds after a token; `body` has further fields of the exchange.
    """

    def __init__(self, urls, mint, *, clients=CLIENTS, pause=0.0, connect=http.client.HTTPConnection, **body):
        self._pause, self._connect, self._body = pause, connect, body
        self._urls = itertools.cycle([urlsplit(url).netloc for url in urls])
        self._mint = mint
        self._stopping = threading.Event()
        self._progress = threading.Condition()
        self.jobs = []
        self.ended = None
        self._issued = []
        self._attempts = []
        self._threads = [threading.Thread(target=self._work) for _ in range(clients)]

    def __enter__(self):
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        with self._progress:
            self.ended = time.monotonic()
            self._progress.notify_all()

    def issued(self):
        """Yield each job as soon as its token is issued, until the load has ended."""
        for number in itertools.count():
            with self._progress:
                self._progress.wait_for(lambda: number < len(self._issued) or self.ended)  # noqa: B023 - called at once
            if number == len(self._issued):
                return
            yield self._issued[number]

    def attempts(self, since=0.0):
        return [it for it in self._attempts if it.at >= since]

    def wait_for(self, count, *, since=0.0, statuses=(200,)):
        """Wait until `count` attempts since a point in time have ended with one of the statuses."""
        seen = found = 0

        def reached():
            nonlocal seen, found
            new = self._attempts[seen:]
            seen += len(new)
            found += sum(it.at >= since and it.status in statuses for it in new)
            return found >= count

        with self._progress:
            assert self._progress.wait_for(reached, PATIENCE_SECONDS * SCALE), self.outcomes(since)

    def run(self, count):
        """Wait for `count * SCALE` further successful exchanges; return the time at which this wait began."""
        since = time.monotonic()
        self.wait_for(count * SCALE, since=since)
        return since

    def outcomes(self, since=0.0):
        return Counter((it.status, it.reason) for it in self.attempts(since))

    def _work(self):
        connections = {}
        while not self._stopping.is_set():
            job = Job(self._mint())
            self.jobs.append(job)
            while not self._try(connections, job):
                self._stopping.wait(0.02)
            self._stopping.wait(self._pause)
        for connection in connections.values():
            connection.close()

    def _try(self, connections, job):
        """Make one attempt; return whether the exchange is decided or the load is stopping."""
        address = next(self._urls)
        connection = connections.setdefault(address, self._connect(address, timeout=20))
        began = time.monotonic()
        try:
            body = json.dumps({"token": job.token, **self._body})
            connection.request("POST", "/api/v1/oidc/token", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read()) if _is_json(answer) else {}
            status, reason = answer.status, content.get("details", {}).get("reason")
            job.issued = content.get("access_token")
        except (OSError, http.client.HTTPException):
            connection.close()
            status, reason = 0, None
        now = time.monotonic()
        job.attempts.append(Attempt(now, now - began, status, reason))
        with self._progress:
            self._attempts.append(job.attempts[-1])
            if job.issued:
                self._issued.append(job)
            self._progress.notify_all()
        return status not in {0, 503} or self._stopping.is_set()


class Replica(Served):
    """A replica of the provider."""

    def replaced(self, victim):
        """Kill a worker and return the process id of its replacement."""
        before = self.workers()
        os.kill(victim, signal.SIGKILL)
        new = wait_until(
            lambda: [pid for pid in self.workers() if pid not in before],
            "its successor",
            log=self.log.read_text,
            pause=0.01,
        )
        return new[0]

    def kill(self):
        """Kill all its processes and delete its shared memory, as a power failure would."""
        workers = self.workers()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for folder in Path("/dev/shm").glob("sentryagent-metrics-*"):
            if any(list(folder.glob(f"*_{worker}.db")) for worker in workers):
                shutil.rmtree(folder)

    def megabytes(self):
        """The private memory of the workers and the background process."""
        return sum(map(_private_kilobytes, [*self.workers(), self.background()])) / 1024


def _is_json(answer):
    """Whether the response comes from the provider: a proxy in front of it sends its own HTML pages."""
    return answer.headers.get_content_type() == "application/json"


def _private_kilobytes(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


@dataclass
class Provider:
    """The replicas of one provider, with one database and one issuer."""

    database_url: str
    github: MockIdp
    replicas: list[Replica]
    issuer: str = ISSUER

    def command(self, *words):
        return self.replicas[0].command(*words)

    def api(self, replica=0):
        """A client for an admin's requests to one replica."""
        return self.replicas[replica].client("/api/v1", headers=self.replicas[0].admin)

    def load(self, url=None, **options):
        """Load on all replicas, or on the proxy at `url`."""
        urls = [url] if url else [it.url for it in self.replicas]
        return Load(urls, lambda: self.github.mint(audience=self.issuer), **options)

    def numbers(self, replica=0):
        """The metrics of one replica, by name and labels."""
        with self.replicas[replica].client() as client:
            page = client.get("/metrics").raise_for_status().text
        lines = [line for line in page.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def rows(self, statement):
        engine = create_engine(self.database_url, poolclass=NullPool)
        with engine.begin() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]

    def execute(self, statement):
        """Run a statement in the database, as a migration does."""
        engine = create_engine(self.database_url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(statement))

    def assert_sound(self, load, title, reasons=()):
        """Assert that every issued token is audited and its ID token used up, and that no client got worse than a 503.

        A refusal for one of `reasons` is allowed.
        """
        handed_out = [job for job in load.jobs if job.issued]
        audited = self._audited()
        digests = {bytes(digest) for (digest,) in self.rows("SELECT token_digest FROM used_tokens")}
        for job in handed_out:
            assert audited.get(claims_of(job.issued)["jti"]) == job.jti
            assert self._digest(job.jti) in digests
        assert len({job.issued for job in handed_out}) == len(handed_out)
        assert digests <= set(map(self._digest, audited.values())), "a token was used up without its record"
        assert digests >= set(map(self._digest, self._audited(LATELY).values())), (
            "a token on record is not used up"
        )
        assert not [job for job in load.jobs if _is_odd(job, reasons)], load.outcomes()
        self._check_replays(handed_out[:: max(1, len(handed_out) // 20)])
        self._check_chain()
        _tell(title, load, handed_out)

    def _audited(self, condition="1 = 1"):
        """The `jti` of each GitHub token whose exchange is audited, by the `jti` of the issued token."""
        rows = self.rows(f"SELECT details FROM audit_log WHERE action = 'token.issued' AND {condition}")
        details = [json.loads(text) for (text,) in rows]
        return {it["issuedJti"]: it["jti"] for it in details if "jti" in it}

    def _digest(self, jti):
        """The digest under which a used token is stored."""
        return sha256(f"{self.github.issuer}\0{jti}".encode()).digest()

    def _check_replays(self, jobs):
        with self.replicas[0].client() as client:
            answers = [client.post("/api/v1/oidc/token", json={"token": job.token}) for job in jobs]
        for answer in answers:
            assert answer.json()["details"]["reason"] in {"replayed", "expired", "not_yet_valid"}, answer.text

    def _check_chain(self):
        with self.api() as api:
            report = api.get("/audit/verify").raise_for_status().json()
        assert report["valid"] is True, report
        assert report["checked"] > 0


def _is_odd(job, reasons):
    """Whether a job ended with an unexpected status; `replayed` is fine on a retry, whose earlier try may have counted."""
    last = job.attempts[-1] if job.attempts else None
    if job.issued or last is None or last.status in {0, 503} or last.reason in reasons:
        return False
    return last.reason != "replayed" or len(job.attempts) == 1


def _tell(title, load, handed_out):
    seconds = load.ended - load.began
    moments = sorted([load.began, *(job.attempts[-1].at for job in handed_out)])
    gap = max(later - earlier for earlier, later in itertools.pairwise(moments))
    counts = Counter(it.status for it in load.attempts())
    print(  # for `make faults`; otherwise pytest captures it
        f"\n{title}: {len(handed_out)} tokens in {seconds:.1f} s ({len(handed_out) / seconds:.0f}/s), "
        f"{counts[503]} times 503, {counts[0]} broken connections, longest pause {gap:.1f} s, "
        f"slowest answer {max(it.seconds for it in load.attempts()):.1f} s"
    )


@pytest.fixture
def provide(mock_idp, tmp_path):
    """Start a provider: `provide(database_url, replicas=1, workers=2)`; all replicas start at the same time.

    The first call for a database creates the repository's bootstrap policy.
    """
    with contextlib.ExitStack() as running:

        def start(database_url, *, replicas=1, workers=2, kind=Replica, **settings):
            usual = {
                "DATABASE_URL": database_url,
                "GITHUB_ISSUER": mock_idp.issuer,
                "RATE_LIMIT": "0",
                "PUBLIC_URL": ISSUER,
                "LOG_LEVEL": "warning",
            }
            environ = clean_environment(**usual | settings)
            started = [
                kind(tmp_path / f"{kind.__name__}-{number}.log", environ, "--workers", workers)
                for number in range(replicas)
            ]
            for replica in started:
                running.callback(replica.stop)
                replica.start()
            for replica in started:
                replica.wait_until_ready()
            provider = Provider(database_url, mock_idp, started)
            with provider.api() as api:
                if api.get("/oidc/trust-policies").json()["data"] == []:
                    api.post("/oidc/trust-policies", json={"repository": REPOSITORY}).raise_for_status()
            return provider

        yield start


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def provider(request, provide, tmp_path):
    """One replica with two workers on SQLite, or two replicas with one worker each on PostgreSQL."""
    if request.param == "sqlite":
        return provide(f"sqlite:///{tmp_path}/provider.db")
    return provide(request.getfixturevalue("postgres_url"), replicas=2, workers=1)


@pytest.fixture
def small_disk():
    """A folder on a 24 MB file system; `fill()` uses all of its space, `free()` releases it."""
    # Not pytest's temporary folder: under root, PostgreSQL's user cannot access it.
    folder = Path(tempfile.mkdtemp(prefix="small-disk-", dir="/tmp"))
    mounted = run("mount", "-t", "tmpfs", "-o", "size=24m,mode=0755", "tmpfs", folder)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        output_of("umount", "--lazy", folder)
        folder.rmdir()


@dataclass(frozen=True)
class SmallDisk:
    folder: Path

    def fill(self):
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass

    def free(self):
        (self.folder / "filler").unlink()
