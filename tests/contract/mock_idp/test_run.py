"""`mock-idp run` on a small action, as a process and, if there is an engine, as a container."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys

import pytest

from kit.processes import PATIENCE_SECONDS

MOCK_IDP = [sys.executable, "-c", "from mock_idp.cli.main import main; main()"]
JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
ENGINES = ["process", pytest.param("docker", marks=pytest.mark.docker)]


@pytest.fixture
def run(command, idp, sample_action, tmp_path):
    """Run the sample action; return exit code, log and report."""

    def run(*words, **environment):
        report = tmp_path / "report.json"
        code, out, err = command(
            "run", sample_action, "--url", idp.url, "--json", report, *words, **environment
        )
        assert err == ""
        return code, out, json.loads(report.read_text())

    return run


@pytest.mark.parametrize("engine", ENGINES)
def test_an_action_gets_its_token_and_no_log_shows_it(run, idp, engine):
    """The token is unmasked only in the report's outputs, masked everywhere else; the post stage gets the state."""
    code, log, report = run("--engine", engine)

    assert (code, report["outcome"], report["state"]) == (0, "success", {"mode": "token"})
    assert JWT.fullmatch(report["outputs"]["token"])
    assert "the token is ***" in log
    assert not JWT.search(log + report["summary"])
    assert report["summary"] == "# Sample\n\ntoken ***\n"
    assert report["annotations"] == [{"level": "notice", "title": "Post", "message": "state is token"}]
    assert [entry["audience"] for entry in idp.state.requests()] == ["https://octo-org.example.com"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_is_told_and_the_post_stage_still_runs(run, engine):
    """A failure exits with 1 and reports the action's error with its location; the post stage still runs."""
    code, log, report = run("--engine", engine, "--input", "mode=fail")

    assert (code, report["outcome"]) == (1, "failure")
    assert report["annotations"][0] == {
        "level": "error",
        "title": "Sample",
        "message": "it went wrong: 100%",
        "file": "main.py",
        "line": 3,
    }
    assert log.count("##[error]") == 1
    assert "##[notice]state is fail" in log


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_sees_the_runners_environment(run, engine):
    """Inputs keep their hyphens, `runs.args` and `runs.env` are evaluated, and no variable of this machine leaks."""
    words = [
        "--engine",
        engine,
        "--input",
        "mode=environment",
        "--input",
        "api-url=https://a",
        "--env",
        "EXTRA=1",
    ]

    _, _, report = run(*words, SECRET_OF_MINE="1", GITHUB_TOKEN="t", GITHUB_SHA="f" * 40)

    seen = json.loads(report["outputs"]["environment"])
    assert (seen["INPUT_API-URL"], seen["SAMPLE_URL"], seen["EXTRA"]) == ("https://a", "https://a", "1")
    assert json.loads(seen["argv"]) == ["--mode", "environment", ""]
    assert seen["cwd"] == seen["GITHUB_WORKSPACE"]
    assert not {"SECRET_OF_MINE", "GITHUB_TOKEN", "MOCK_IDP_URL"} & seen.keys()
    assert seen["GITHUB_SHA"] != "f" * 40


@pytest.mark.docker
def test_a_container_sees_the_runners_paths(run):
    """Paths of mounted folders are translated, other paths stay unchanged."""
    _, _, report = run("--engine", "docker", "--input", "mode=environment")

    seen = json.loads(report["outputs"]["environment"])
    assert (seen["HOME"], seen["cwd"]) == ("/github/home", "/github/workspace")
    assert seen["GITHUB_OUTPUT"].startswith("/github/file_commands/set_output_")
    assert seen["GITHUB_EVENT_PATH"] == "/github/workflow/event.json"
    assert not seen["RUNNER_TOOL_CACHE"].startswith("/github/")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bad_output_file_fails_the_step(run, engine):
    """A malformed output file fails the step, even if the action exits with 0."""
    code, log, report = run("--engine", engine, "--input", "mode=bad-file")

    assert (code, report["outputs"]) == (1, {"good": "1"})
    assert "##[error]Invalid value. Matching delimiter not found 'EOF'" in log


@pytest.mark.parametrize("mode", ["none", "fork"])
def test_without_permission_the_action_finds_no_variable(run, mode):
    """Without the permission, the action fails as it would on GitHub."""
    code, log, _ = run("--id-token", mode)

    assert code == 1
    assert "KeyError: 'ACTIONS_ID_TOKEN_REQUEST_URL'" in log


def test_the_job_ends_with_the_run(run, idp):
    """The job ends with the run, so that a leaked request token is useless."""
    run()

    assert idp.state._jobs == {}


def test_the_report_is_for_this_user_alone(run, tmp_path):
    """Only this user can read the report, even if a readable file existed before."""
    report = tmp_path / "report.json"
    report.touch(mode=0o644)

    run()

    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_nothing_is_left_in_the_actions_folder(run, sample_action):
    """The run leaves neither bytecode nor output files in the action's folder."""
    before = sorted(sample_action.rglob("*"))

    run()

    assert sorted(sample_action.rglob("*")) == before


def test_a_workspace_can_be_given(run, tmp_path):
    """The step runs in the given workspace, as after a checkout."""
    workspace = tmp_path / "checkout"
    workspace.mkdir()

    _, _, report = run("--input", "mode=environment", "--workspace", workspace)

    assert json.loads(report["outputs"]["environment"])["cwd"] == str(workspace)


def test_an_action_that_cannot_be_run_is_one_line(command, idp, tmp_path):
    """A folder without an action exits with 2 and one line."""
    code, out, err = command("run", tmp_path, "--url", idp.url)

    assert (code, out) == (2, "")
    assert err == f"mock-idp: Can't find 'action.yml', 'action.yaml' or 'Dockerfile' under '{tmp_path}'.\n"


def test_a_workflow_file_is_sent_to_act(command, idp, tmp_path):
    """A workflow file exits with 2 and one line that refers to `mock-idp act`."""
    file = tmp_path / "ci.yml"
    file.write_text("on: push\njobs: {}\n")

    code, out, err = command("run", file, "--url", idp.url)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"run a workflow with act: mock-idp act -- -W {file}\n" in err
    assert idp.state.jobs() == []


def test_a_report_that_cannot_be_written_is_told_before_the_run(command, idp, sample_action, tmp_path):
    """An unwritable report fails before the action starts."""
    code, out, err = command(
        "run", sample_action, "--url", idp.url, "--json", tmp_path / "gone" / "report.json"
    )

    assert (code, out, idp.state.requests()) == (2, "", [])
    assert err.startswith("mock-idp: --json: cannot write ")


def test_a_post_stage_that_is_nowhere_is_told_before_the_run(command, idp, sample_action, tmp_path):
    """A missing post entry point fails before the action starts, because its clean-up could not run."""
    action = tmp_path / "action"
    shutil.copytree(sample_action, action)
    (action / "bin" / "sample-post").unlink()

    code, out, err = command("run", action, "--url", idp.url)

    assert (code, "the token is" in out, idp.state.requests()) == (2, False, [])
    assert "cannot find the entry point 'sample-post'" in err


PUBLISHED = """name: Published
runs:
  using: docker
  image: docker://python:3.13-slim
  entrypoint: python
  args: [-c, "print('::notice::inside')"]
"""


@pytest.mark.docker
def test_a_published_image_is_run_as_it_is(command, idp, tmp_path):
    """A published image is run without a build."""
    (tmp_path / "action.yml").write_text(PUBLISHED)

    code, out, err = command("run", tmp_path, "--url", idp.url, "--engine", "docker")

    assert (code, err) == (0, "")
    assert "##[notice]inside" in out
    assert "Building" not in out


def test_a_published_image_needs_docker(command, idp, tmp_path):
    """The process engine says that a published image needs Docker."""
    (tmp_path / "action.yml").write_text(PUBLISHED)

    code, _, err = command("run", tmp_path, "--url", idp.url)

    assert code == 2
    assert (
        err
        == "mock-idp: python:3.13-slim is a published image; the process engine needs a Dockerfile. Use --engine docker.\n"
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_an_interrupted_run_leaves_nothing_running(idp, sample_action, tmp_path, engine):
    """SIGTERM ends the action's process or container, and the job."""
    words = [
        "run",
        sample_action,
        "--url",
        idp.url,
        "--engine",
        engine,
        "--input",
        "mode=wait",
        "--workspace",
        tmp_path,
    ]
    with subprocess.Popen([*MOCK_IDP, *map(str, words)], stdout=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stdout if line.startswith("waiting as "))
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 143
    assert "##[notice]state is" in rest
    assert idp.state._jobs == {}
    assert not _is_running(engine, line.split()[-1], tmp_path)


def _is_running(engine, pid, workspace):
    if engine == "docker":
        containers = ["docker", "ps", "-q", "--filter", f"volume={workspace}"]
        return subprocess.check_output(containers, text=True) != ""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True
