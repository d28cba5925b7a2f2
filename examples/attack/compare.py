"""Run the attack pack against PyJWT, joserfc, jose, google-auth and OpenBao, for the table of the mock's manual.

`python compare.py` prints the table, `python compare.py --write` also writes it to mock_idp/README.md. Needs the test
tools (`make install`), Node.js and npm.
"""

import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import verifiers

from mock_idp import MockIdp
from mock_idp.signing_keys import make_ring

HERE = Path(__file__).resolve().parent
MANUAL = HERE.parents[1] / "mock_idp" / "README.md"
BEGIN, END = "<!-- made by `make attack-table` -->", "<!-- end of the table -->"
BIN = Path(sys.executable).parent
AUDIENCE = "https://id.example.com"
JOSE = "6.2.18"
START_SECONDS = 30
WORDS = {
    "accepted": "accepts",
    "broken": "breaks",
    "fetched": "fetches",
    "limited": "limits",
    "not sent": "not sent",
}


@contextmanager
def _process(command: list[object], **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def jose(issuer: str, folder: Path) -> Iterator[str]:
    """Serve jose under Node.js, and yield its URL."""
    npm = ("npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", f"jose@{JOSE}")
    subprocess.run(npm, cwd=folder, check=True, capture_output=True)
    program = folder / "verifier.mjs"
    program.write_text((HERE / "jose-verifier.mjs").read_text())
    with _process(["node", program, issuer, AUDIENCE]) as process:
        yield process.stdout.readline().strip()


@contextmanager
def openbao(issuer: str, folder: Path) -> Iterator[str]:
    """Serve OpenBao in development mode with its JWT auth method, and yield the URL of its login."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = [
        "-dev",
        "-dev-no-store-token",
        "-dev-root-token-id=root",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    url = f"http://127.0.0.1:{port}/v1/"
    with (
        (folder / "log").open("wb") as log,
        _process([BIN / "bao", "server", *options], env=environ, stderr=log) as process,
    ):
        _wait(f"{url}sys/health", process)
        role = {
            "role_type": "jwt",
            "user_claim": "repository",
            "bound_audiences": [AUDIENCE],
            "bound_claims": verifiers.POLICY,
        }
        _post(f"{url}sys/auth/jwt", {"type": "jwt"})
        _post(f"{url}auth/jwt/config", {"oidc_discovery_url": issuer, "bound_issuer": issuer})
        _post(f"{url}auth/jwt/role/ci", role)
        yield f"{url}auth/jwt/login"


def _post(url: str, body: dict[str, object]) -> None:
    urlopen(Request(url, json.dumps(body).encode(), {"X-Vault-Token": "root"}), timeout=20).close()  # noqa: S310 (loopback)


def _wait(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urlopen(url, timeout=5).close()  # noqa: S310 (loopback)
        except URLError:
            time.sleep(0.05)
        else:
            return
    sys.exit("compare: bao did not start")


def attack(mock: str, url: str, *words: str) -> dict[str, dict[str, object]]:
    """Return the rows of `mock-idp attack` by name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            BIN / "mock-idp",
            "attack",
            url,
            "--url",
            mock,
            "--audience",
            AUDIENCE,
            "--json",
            report,
            *words,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in {0, 1}:
            sys.exit(f"compare: {done.stderr.strip()}")
        return {row["name"]: row for row in json.loads(report.read_text())["results"]}


def measure() -> dict[str, dict[str, dict[str, object]]]:
    """Return the rows of each verifier, by the verifier's name and version."""
    token = ("--send", "json:token")
    ring, found = make_ring(), {}
    for name, verifier in (
        ("PyJWT", verifiers.pyjwt),
        ("joserfc", verifiers.joserfc),
        ("jose", jose),
        ("google-auth", verifiers.google_auth),
        ("OpenBao", openbao),
    ):
        # Each verifier has a mock of its own, whose log shows how often it fetched keys.
        with ExitStack() as stack:
            mock = stack.enter_context(MockIdp(ring=ring))
            if verifier in {jose, openbao}:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                url = stack.enter_context(verifier(mock.issuer, folder))
            else:
                url = stack.enter_context(verifiers.served(verifier(mock.issuer, AUDIENCE)))
            words = ("--send", "json:jwt", "--member", "role=ci") if verifier is openbao else token
            found[f"{name} {_version(name)}"] = attack(mock.url, url, *words)
    return found


def _version(name: str) -> str:
    if name == "jose":
        return JOSE
    if name == "OpenBao":
        said = subprocess.run([BIN / "bao", "version"], capture_output=True, text=True, check=True).stdout
        return re.search(r"v([0-9.]+)", said)[1]
    return version(name)


def table(found: dict[str, dict[str, dict[str, object]]]) -> str:
    """Return a line for each row that a verifier has wrong, by who can make the token; then the totals."""
    rows = next(iter(found.values()))
    lines = [
        f"| attack | who can make it | severity | {' | '.join(found)} |",
        f"|{' --- |' * (3 + len(found))}",
    ]
    for name, row in rows.items():
        cells = [_cell(of_one[name]) for of_one in found.values()]
        if any(cells):
            lines.append(f"| `{name}` | {row['who']} | {row['severity']} | {' | '.join(cells)} |")
    for who in dict.fromkeys(row["who"] for row in rows.values() if row["who"]):
        counts = [
            sum(row["who"] == who and not row["asExpected"] for row in of_one.values())
            for of_one in found.values()
        ]
        total = sum(row["who"] == who for row in rows.values())
        lines.append(f"| **{who}: wrong of {total}** | | | {' | '.join(map(str, counts))} |")
    python = ".".join(platform.python_version_tuple()[:2])
    return "\n".join([f"With Python {python}; empty cells are as expected:", "", *lines])


def _cell(row: dict[str, object]) -> str:
    if row["name"].startswith("leeway"):
        return "" if row["asExpected"] else row["note"]
    return "" if row["asExpected"] else WORDS.get(row["verdict"], row["verdict"])


def main() -> None:
    """Measure and print; with `--write`, also write the table to the manual."""
    text = table(measure())
    print(text)
    if sys.argv[1:] == ["--write"]:
        before, _, rest = MANUAL.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        MANUAL.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
