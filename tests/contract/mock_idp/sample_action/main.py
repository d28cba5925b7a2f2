"""A small action for the runner's tests, which uses only the standard library."""

import json
import os
import sys
import threading
import urllib.parse
import urllib.request
from pathlib import Path


def _append(variable: str, text: str) -> None:
    with Path(os.environ[variable]).open("a", encoding="utf-8") as file:
        file.write(text)


def _id_token() -> str:
    url = (
        os.environ["ACTIONS_ID_TOKEN_REQUEST_URL"]
        + "&audience="
        + urllib.parse.quote(os.environ["INPUT_AUDIENCE"])
    )
    authorization = "bearer " + os.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
    request = urllib.request.Request(url, headers={"Authorization": authorization})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)["value"]


def main(mode: str) -> int:
    """Act according to the input `mode`, and return the exit code."""
    _append("GITHUB_STATE", f"mode={mode}\n")
    if mode == "fail":
        print("::error title=Sample,file=main.py,line=3::it went wrong: 100%25", file=sys.stderr)
        return 3
    if mode == "wait":
        print(f"waiting as {os.getpid()}")
        threading.Event().wait(60)
    if mode == "environment":
        seen = {**os.environ, "argv": json.dumps(sys.argv[1:]), "cwd": str(Path.cwd())}
        _append("GITHUB_OUTPUT", f"environment<<EOF\n{json.dumps(seen)}\nEOF\n")
        return 0
    if mode == "bad-file":
        _append("GITHUB_OUTPUT", "good=1\nbad<<EOF\nnever closed\n")
        return 0
    token = _id_token()
    print(f"::add-mask::{token}")
    print(f"the token is {token}")
    _append("GITHUB_OUTPUT", f"token={token}\n")
    _append("GITHUB_STEP_SUMMARY", f"# Sample\n\ntoken {token}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2]))
