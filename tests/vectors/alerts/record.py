"""Record a provider's /metrics in normal operation and under each fault that has an alert.

`make alert-recordings` writes the files next to this one, one for each scene below: real providers run in real time, all at
once, scraped every 15 s as Prometheus does. It takes half an hour. `tests/contract/deploy/test_prometheus.py` replays them.
"""

import re
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from conftest import PostgresCluster  # noqa: E402 - the folder of tests is on the path since the line above
from kit.processes import Served, clean_environment, free_port  # noqa: E402
from mock_idp.server import MockIdp  # noqa: E402

SECONDS = 15
FAULT = 8
"""The scrape before which a fault begins: two minutes after the start."""
LENGTH = 64
HEALTHY_LENGTH = 121
RULES = HERE.parents[2] / "deploy" / "prometheus" / "rules.yaml"
REPOSITORY = "octo-org/hello-agent"
SEALS_LOCK = 0x53656E74727902
"""`sentryagent_idp.store.locks.Lock.AUDIT_SEALS`"""


class Stage:
    """One provider and its GitHub, on which a fault is played."""

    def __init__(self, stack: ExitStack, **settings: object) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.github = stack.enter_context(MockIdp())
        self.database = self.folder / "sentryagent.db"
        self.cluster: PostgresCluster | None = None
        self.settings = {"GITHUB_ISSUER": self.github.issuer, "LOG_LEVEL": "warning", **settings}
        stack.callback(self.stop)
        self.served: Served | None = None
        self.stack = stack

    def start(self) -> None:
        """Start the provider; the first time, also create a policy for the repository."""
        is_new = self.served is None
        port = None if is_new else self.served.port
        self.served = Served(
            self.folder / "log", clean_environment(**self.settings), "--workers", 1, cwd=self.folder
        )
        self.served.port = port or self.served.port
        self.served.url = f"http://127.0.0.1:{self.served.port}"
        self.served.start()
        self.served.wait_until_ready()
        if is_new:
            with self.served.client("/api/v1", headers=self.served.admin) as api:
                body = {"repository": REPOSITORY, "branch": "main"}
                api.post("/oidc/trust-policies", json=body).raise_for_status()

    def stop(self) -> None:
        """Stop the provider as an operator would."""
        if self.served is not None and self.served.process.poll() is None:
            self.served.stop()

    def token(self, **claims: object) -> str:
        return self.github.mint(audience=self.served.url, claims=claims)

    def exchange(self, token: str = "", **claims: object) -> int:
        """Exchange an ID token and return the status."""
        with self.served.client("/api/v1") as client:
            return client.post("/oidc/token", json={"token": token or self.token(**claims)}).status_code

    def sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.database, timeout=30)) as connection, connection:
            connection.execute(statement)

    def scrape(self) -> dict[str, float] | None:
        """Return the samples of /metrics, or `None` if the provider does not respond."""
        try:
            page = (
                httpx.get(f"{self.served.url}/metrics", timeout=10, trust_env=False).raise_for_status().text
            )
        except httpx.HTTPError:
            return None
        lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}


def healthy(stage: Stage, number: int) -> None:
    """Some exchanges, and now and then one from a branch that is not permitted or a token that has expired."""
    for _ in range(6):
        stage.exchange()
    if number % 4 == 0:
        stage.exchange(ref="refs/heads/dev")
    if number % 10 == 0:
        stage.exchange("not a token")


def down(stage: Stage, number: int) -> None:
    """The process has ended."""
    if number == FAULT:
        stage.stop()


def database_away(stage: Stage, number: int) -> None:
    """The file of the database is no longer at its path."""
    if number == FAULT:
        stage.database.rename(stage.folder / "moved.db")
    stage.exchange()


def issuer_unreachable(stage: Stage, number: int) -> None:
    """GitHub's keys cannot be fetched from the start: nothing listens at the issuer."""
    stage.exchange(iss=stage.settings["GITHUB_ISSUER"])


def database_slow(stage: Stage, number: int) -> None:
    """Another program holds SQLite's write lock for 1.5 s at a time, with a moment in between."""
    if number == FAULT:
        threading.Thread(target=_hold_lock, args=(stage.database,), daemon=True).start()
    for _ in range(3):
        stage.exchange()


def _hold_lock(database: Path) -> None:
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        while database.exists():
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(1.5)
            connection.execute("COMMIT")
            time.sleep(0.02)


def refusals(stage: Stage, number: int) -> None:
    """A workflow that runs on another branch now."""
    for _ in range(3):
        stage.exchange(ref="refs/heads/dev" if number >= FAULT else "refs/heads/main")


def identity_changed(stage: Stage, number: int) -> None:
    """Once, a repository of the policy's name that has another id."""
    stage.exchange(**({"repository_id": "666"} if number == FAULT else {}))


def replayed(stage: Stage, number: int) -> None:
    """One token, ten times."""
    token = stage.token()
    for _ in range(10 if number == FAULT else 1):
        stage.exchange(token)


def rate_limited(stage: Stage, number: int) -> None:
    """A workflow that asks again and again, beyond the limit of 30 a minute."""
    for _ in range(16 if number >= FAULT else 3):
        stage.exchange()


def unsealed(stage: Stage, number: int) -> None:
    """Nobody seals, because a session that hangs has the lock of the sealers; a thousand exchanges wait."""
    if number == FAULT:
        import psycopg

        url = stage.cluster.url().replace("postgresql+psycopg", "postgresql")
        stage.stack.enter_context(psycopg.connect(url, autocommit=True)).execute(
            f"SELECT pg_advisory_lock({SEALS_LOCK})"
        )
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: stage.exchange(), range(1100)))


def chain_broken(stage: Stage, number: int) -> None:
    """An audit record is changed in the database."""
    stage.exchange()
    if number == FAULT:
        stage.sql(
            "UPDATE audit_log SET actor = 'somebody' WHERE sequence = (SELECT MIN(sequence) FROM audit_log)"
        )


def signing_key_old(stage: Stage, number: int) -> None:
    """Nobody has rotated the keys for 200 days."""
    if number == FAULT:
        stage.sql(f"UPDATE signing_keys SET created_at = created_at - {200 * 86400 * 10**6}")


def other_issuers(stage: Stage, number: int) -> None:
    """The provider is started again with another issuer, for which there is no policy."""
    if number == FAULT:
        stage.stop()
        stage.settings["GITHUB_ISSUER"] = stage.stack.enter_context(MockIdp()).issuer
        stage.start()


SCENES: tuple[Callable[[Stage, int], None], ...] = (
    *(healthy, down, database_away, issuer_unreachable, database_slow, refusals, identity_changed, replayed),
    *(rate_limited, unsealed, chain_broken, signing_key_old, other_issuers),
)


def _prepare(stage: Stage, scene: Callable[[Stage, int], None]) -> None:
    if scene is unsealed:
        stage.cluster = PostgresCluster()
        stage.stack.callback(stage.cluster.remove)
        stage.cluster.start()
        stage.settings |= {"DATABASE_URL": stage.cluster.url(), "RATE_LIMIT": 0}
    if scene is rate_limited:
        stage.settings["RATE_LIMIT"] = 30
    if scene is issuer_unreachable:
        stage.settings["GITHUB_ISSUER"] = f"http://127.0.0.1:{free_port()}"
    stage.start()


def record(scene: Callable[[Stage, int], None]) -> None:
    """Play a scene and write the recording."""
    length = HEALTHY_LENGTH if scene is healthy else LENGTH
    with ExitStack() as stack:
        stage = Stage(stack)
        _prepare(stage, scene)
        pages, began = [], time.monotonic()
        for number in range(length):
            time.sleep(max(0.0, began + number * SECONDS - time.monotonic()))
            scene(stage, number)
            pages.append(stage.scrape())
    series = list(_input_series(pages))
    text = yaml.safe_dump(series, width=10_000, sort_keys=False)
    title = (scene.__doc__ or "").partition("\n")[0]
    (HERE / f"{scene.__name__}.yaml").write_text(f"# {title} Recorded by record.py.\n{text}")


def _input_series(pages: list[dict[str, float] | None]) -> Iterator[dict[str, str]]:
    """Yield the series that the rules use, for promtool, without counters that stay at 0."""
    used = set(re.findall(r"\bagentidp_\w+", RULES.read_text()))
    names = dict.fromkeys(name for page in pages if page for name in page)
    yield _one("up", [float(page is not None) for page in pages])
    for name in names:
        values = [None if page is None else page.get(name) for page in pages]
        is_counter = name.partition("{")[0].endswith(("_total", "_bucket"))
        if name.partition("{")[0] in used and not (is_counter and set(values) <= {0.0, None}):
            yield _one(name, values)


def _one(name: str, values: list[float | None]) -> dict[str, str]:
    metric, _, labels = name.partition("{")
    labels = ",".join(
        filter(None, ['instance="idp:3000"', 'job="sentryagent-idp"', labels.removesuffix("}")])
    )
    return {"series": f"{metric}{{{labels}}}", "values": " ".join(_notation(values))}


def _notation(values: list[float | None]) -> Iterator[str]:
    """Promtool's notation: `a+bxn` is n + 1 samples, `stale` ends a series, `_` is a missing sample."""
    place = 0
    while place < len(values):
        if values[place] is None:
            yield "stale" if place and values[place - 1] is not None else "_"
            place += 1
            continue
        steps = _steps(values, place)
        yield _number(values[place]) if not steps else _run(values, place, steps)
        place += steps + 1


def _run(values: list[float | None], place: int, steps: int) -> str:
    step = values[place + 1] - values[place] if steps else 0
    sign = "-" if step < 0 else "+"
    return f"{_number(values[place])}{sign}{_number(abs(step))}x{steps}"


def _steps(values: list[float | None], place: int) -> int:
    """The number of further samples that keep the same step."""
    steps = 0
    while place + steps + 1 < len(values):
        last, following, first = values[place + steps], values[place + steps + 1], values[place]
        if following is None or first == float("inf") or following == float("inf"):
            break
        if steps and following - last != values[place + 1] - first:
            break
        steps += 1
    return steps


def _number(value: float) -> str:
    return "Inf" if value == float("inf") else f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def main() -> None:
    """Record all scenes, or the named ones, at the same time."""
    wanted = [scene for scene in SCENES if not sys.argv[1:] or scene.__name__ in sys.argv[1:]]
    with ThreadPoolExecutor(len(wanted)) as pool:
        for done in [pool.submit(record, scene) for scene in wanted]:
            done.result()


if __name__ == "__main__":
    main()
