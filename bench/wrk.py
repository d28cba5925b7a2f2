"""Load from wrk: as much as a server takes, at little cost to the processor that both share."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.load import CONNECTIONS, PATIENCE_SECONDS, LoadFailed, Outcome, Target
from bench.processes import run

_SCRIPT = Path(__file__).with_name("wrk.lua")


def program() -> str | None:
    """Return the path of wrk, or None if it is not installed."""
    return shutil.which("wrk")


def most(wrk: str, target: Target, requests: Sequence[bytes], seconds: float) -> Outcome:
    """Send the requests, each once, as fast as the server answers; raises `LoadFailed`."""
    with tempfile.NamedTemporaryFile(prefix="bench-requests-") as file:
        for request in requests:
            file.write(b"%d\n%b" % (len(request), request))
        file.flush()
        bound = f"-d{seconds + PATIENCE_SECONDS:.0f}s"
        url = f"http://127.0.0.1:{target.port}"
        words = [file.name, f'"{target.token_field}"', str(seconds), target.spare_path]
        said = run([wrk, "-t1", f"-c{CONNECTIONS}", bound, f"-s{_SCRIPT}", url, "--", *words])
    return _outcome(said)


def _outcome(said: str) -> Outcome:
    """Parse the line that `wrk.lua` prints between wrk's own lines."""
    found = re.search(r"^bench:\t([^\t]*)\t(\d+)\t(\d+)\t(\d+)\t(.*)\Z", said, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LoadFailed(f"wrk did not get every response: {said.strip()}")
    elapsed, in_time, tokens, refused, refusal = found.groups()
    return Outcome(float(elapsed), int(in_time), int(tokens), int(refused), refusal.strip())
