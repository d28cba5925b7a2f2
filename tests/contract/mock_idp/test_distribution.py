"""The mock's wheel, installed alone in a new environment."""

import re
import signal
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest

from kit.processes import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[3]


def _run(*words, **options):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=180, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The bin folder of a new environment with the wheel and its locked requirements."""
    folder = tmp_path_factory.mktemp("wheel")
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    _run(sys.executable, "-m", "pip", "wheel", "-q", *offline, "-w", folder, ROOT / "mock_idp")
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--disable-pip-version-check")
    _run(*pip, "--require-hashes", "-r", ROOT / "requirements" / "mock.txt")
    _run(*pip, "--no-deps", "--no-index", wheel)
    return python.parent


def test_the_server_runs_with_its_extra_alone(environment):
    """The server starts, responds, mints a token by form (the wheel has the page's template) and ends."""
    with subprocess.Popen(
        [environment / "mock-idp", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        url = re.search(r"listening on (http://127\.0\.0\.1:\d+)", process.stdout.readline())[1]
        with httpx.Client(base_url=url, trust_env=False) as client:
            statuses = [
                client.get(path).status_code for path in ("/.well-known/jwks", "/_mock/", "/_mock/health")
            ]
            page = client.post("/_mock/", data={"repository": "octo-org/by-form"})
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)

    assert (statuses, page.status_code, process.returncode, err) == ([200, 200, 200], 200, 0, "")
    assert "octo-org/by-form" in page.text


@pytest.mark.parametrize("words", [("run", "--help"), ("attack", "--help"), ("env", "--help")])
def test_every_command_starts_with_the_extra_alone(environment, words):
    """Every command starts without packages that only other parts of this repository require."""
    assert _run(environment / "mock-idp", *words).startswith("Usage: mock-idp")
    assert _run(environment / "python", "-m", "mock_idp", *words).startswith("Usage: mock-idp")


def test_every_module_imports_with_the_extra_alone(environment):
    """Every module can be imported, except for the pytest plugin, which needs pytest."""
    code = (
        "import importlib, pkgutil, mock_idp\n"
        "for module in pkgutil.walk_packages(mock_idp.__path__, 'mock_idp.'):\n"
        "    if module.name not in {'mock_idp.pytest_plugin', 'mock_idp.__main__'}:\n"
        "        importlib.import_module(module.name)\n"
    )

    assert _run(environment / "python", "-I", "-c", code) == ""
