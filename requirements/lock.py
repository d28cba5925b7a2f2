"""Write the lock files: one set of versions with hashes for Python 3.11 to 3.14, and no registry's host name.

`run.txt` is what the programs need and what builds their distributions, `build.txt`, `server.txt` and `mock.txt` are parts of it for the images, `dev.txt` adds the test tools and the
provider's traces, `otel.txt` is the provider with its traces, and
`action.txt` is the part of `run.txt` that the image of the actions needs: PyGithub and requests (asked for by actions-toolkit) and anyio (by httpx) are not imported there.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ALL = ("server", "mock_idp", "sentryagent_actions", ".")
IN_THE_IMAGE = ("actions-toolkit", "certifi", "h11", "httpcore", "httpx", "idna")


def main() -> None:
    """Resolve, then cut the image's list out of the result."""
    within_run = f"--constraint={HERE / 'run.txt'}"
    compile_lock("run.txt", ALL, "--extra=build")
    compile_lock("build.txt", (".",), "--extra=build", within_run)
    compile_lock("server.txt", ("server",), within_run)
    compile_lock("mock.txt", ("mock_idp",), within_run)
    compile_lock("dev.txt", ALL, "--extra=build", "--extra=dev", "--extra=otel", within_run)
    compile_lock("otel.txt", ("server",), "--extra=otel", f"--constraint={HERE / 'dev.txt'}")
    (HERE / "action.txt").write_text(entries((HERE / "run.txt").read_text(), IN_THE_IMAGE))


def compile_lock(name: str, folders: tuple[str, ...], *options: str) -> None:
    """Resolve what the pyproject.toml of these folders need into one file."""
    arguments = ["pip", "compile", "--upgrade", "--universal", "--python-version=3.11", "--generate-hashes"]
    # pip takes `coverage` for another requirement than `coverage[toml]`: without the extra in the lock it looks for the
    # newest release, and fails on the day there is one.
    arguments.append("--no-strip-extras")
    quiet = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    output = f"--output-file={HERE / name}"
    projects = [ROOT / folder / "pyproject.toml" for folder in folders]
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, *arguments, *quiet, *options, output, *projects], check=True)


def entries(lock: str, names: tuple[str, ...]) -> str:
    """The entries of a lock file for these packages, each with its hashes; fails where one is missing."""
    found = {
        match[1]: match[0]
        for match in re.finditer(r"^([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==.*(?:\n    .*)*\n", lock, re.MULTILINE)
    }
    return "".join(found[name] for name in names)


if __name__ == "__main__":
    main()
