"""`make demo` in a fresh clone, as a first-time reader of the README runs it."""

import os
import re
import subprocess

import pytest

DEMO_SECONDS = 60


@pytest.fixture(scope="module")
def clone(checkout, git, install, tmp_path_factory):
    """A clone after `make install`."""
    clone = tmp_path_factory.mktemp("demo") / "toolkit"
    git(checkout.parent, "clone", "-q", str(checkout), str(clone))
    install(clone)
    return clone


def make_demo(clone, environment):
    """Run `make demo` in its own session, so that its process group contains everything that it started."""
    environ = {name: value for name, value in environment.items() if not name.startswith(("MAKE", "PYTHON"))}
    # Variables that a developer may have set and that must not affect the demo.
    environ |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9") | {"FLASK_DEBUG": "1"}
    demo = subprocess.Popen(
        ["make", "demo"],
        cwd=clone,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    log, _ = demo.communicate(timeout=DEMO_SECONDS)
    return demo, log


def test_the_demo_shows_the_main_job_twice_and_leaves_nothing(clone, git, environment, transcript):
    """Two runs succeed, print no token and leave no process and no file but `.venv`."""
    for _ in range(2):
        demo, log = make_demo(clone, environment)
        transcript.add("make demo", log)

        assert demo.returncode == 0, log
        assert '"created": "true"' in log
        assert log.count('"access-token": "***"') == 2
        assert re.findall(r"POST https://deploy\.example\.com/deployments -> (.*)", log) == [
            '403, Bearer error="insufficient_scope", scope="deploy:production"',
            f'200, {{"agent":"{re.search(r"agent-id: (.*)", log)[1]}"}}',
        ]
        assert "nothing is left running" in log
        with pytest.raises(ProcessLookupError):
            os.killpg(demo.pid, 0)
    assert git(clone, "status", "--porcelain", "--ignored").split() == ["!!", ".venv/"]


def test_the_sweep_finds_a_token_in_what_was_printed(transcript, provider):
    """The search with which every test of this folder ends does find a token in a program's output."""
    bearer = provider.admin.headers["Authorization"]
    transcript.add("a careless program", f"the header is {bearer}")

    [leak] = transcript.leaks()
    transcript.texts.clear()

    assert leak == "a careless program, after 'the header is Bearer '"
