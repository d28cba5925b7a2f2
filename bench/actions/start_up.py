# noqa: INP001 - a program, no package
"""How long a step takes: from start to first request, and the whole of a good run, compared with httpx alone.

    .venv/bin/python bench/actions/start_up.py [--runs 15] [--python PYTHON]

GitHub and the provider are one HTTP server in this process that responds at once, so that nearly all of the time is the
action's own. Runs of the subjects alternate, so that a busy machine slows all of them alike. PYTHON is the interpreter
whose packages are measured; one with only the image's packages (requirements/action.txt) is closest to what users have.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

AGENT = "0b7c1a52-6f0e-4f6a-9d39-5b1f6ad0c1de"
LIMITS = "limits: start to first request below 0.20 s or 1.3 times httpx alone; a good run below 0.45 s (wall time)"


@dataclass(frozen=True)
class Sample:
    """Seconds of one run: wall time and processor time of the process."""

    wall: float
    cpu: float


@dataclass
class Partners:
    """GitHub's ID token endpoint and a provider, in one server; `first_request` is a reading of the monotonic clock."""

    url: str = ""
    first_request: float = 0.0
    answers: dict[str, dict[str, object]] = field(default_factory=dict)


@contextmanager
def partners() -> Iterator[Partners]:
    """Serve canned answers on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            it.first_request = it.first_request or time.monotonic()
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            text = json.dumps(it.answers[self.path.partition("?")[0]]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            """Print nothing: the output is the table."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        it = Partners(f"http://127.0.0.1:{server.server_port}")
        it.answers = _answers(it.url)
        Thread(target=server.serve_forever, daemon=True).start()
        yield it
        server.shutdown()


def _answers(url: str) -> dict[str, dict[str, object]]:
    claims = {"iss": url, "aud": url, "exp": int(time.time()) + 3600}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return {
        "/idtoken": {"value": f"eyJhbGciOiJSUzI1NiJ9.{payload}.c2lnbmF0dXJl"},
        "/api/v1/oidc/audience": {"audience": url},
        "/api/v1/oidc/token": {
            "access_token": "a-token-of-this-benchmark",
            "expires_in": 3600,
            "expires_at": "2999-01-01T00:00:00Z",
            "scope": "agents:read",
        },
    }


def httpx_alone(python: str) -> Sample:
    """Import httpx and create a client: the cost of any action with httpx before its first request."""
    return _run([python, "-I", "-c", "import httpx; httpx.Client()"], {})


def good_run(python: str, it: Partners) -> tuple[Sample, float]:
    """Run issue-token from start to end; also return the seconds to its first request."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(Path(folder, "output")),
            "GITHUB_STATE": str(Path(folder, "state")),
            "GITHUB_STEP_SUMMARY": str(Path(folder, "summary")),
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{it.url}/idtoken?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
            "INPUT_API-URL": it.url,
            "INPUT_AGENT-ID": AGENT,
        }
        it.first_request = 0.0
        began = time.monotonic()
        sample = _run([python, "-I", "-u", "-m", "sentryagent_actions", "issue-token"], environ)
        return sample, it.first_request - began


def _run(command: list[str], environ: dict[str, str]) -> Sample:
    trust = {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
    began = time.monotonic()
    # Not subprocess.run: wait4 returns the processor time of this one process.
    process = subprocess.Popen(command, env=trust | environ, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - began
    if process.returncode:
        sys.exit(f"start_up: {' '.join(command)} ended with {process.returncode}")
    return Sample(wall, usage.ru_utime + usage.ru_stime)


def measure(python: str, runs: int) -> None:
    """Run the subjects in turn and print medians and ratios."""
    alone: list[Sample] = []
    whole: list[Sample] = []
    first: list[float] = []
    with partners() as it:
        good_run(python, it)  # writes the bytecode, fills the page cache
        for _ in range(runs):
            alone.append(httpx_alone(python))
            sample, to_first_request = good_run(python, it)
            whole.append(sample)
            first.append(to_first_request)
    reference = statistics.median(sample.wall for sample in alone)
    _say(f"{runs} runs of {python}, medians\n")
    _say("| subject | wall | processor | to httpx alone |\n|---|---|---|---|")
    _row("`import httpx; httpx.Client()`", reference, _cpu(alone), reference)
    _row("issue-token, start to first request", statistics.median(first), None, reference)
    _row("issue-token, the whole run", statistics.median(it.wall for it in whole), _cpu(whole), reference)
    _say(f"\n{LIMITS}")


def _cpu(samples: list[Sample]) -> float:
    return statistics.median(sample.cpu for sample in samples)


def _row(subject: str, wall: float, cpu: float | None, reference: float) -> None:
    processor = "" if cpu is None else f"{cpu:.3f} s"
    _say(f"| {subject} | {wall:.3f} s | {processor} | {wall / reference:.2f} |")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description="Measure how long a step of issue-token takes.")
    parser.add_argument("--runs", type=int, default=15, help="[default: %(default)s]")
    parser.add_argument("--python", default=sys.executable, help="[default: this one]")
    options = parser.parse_args()
    measure(options.python, options.runs)


if __name__ == "__main__":
    main()
