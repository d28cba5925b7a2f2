from itertools import pairwise
from pathlib import Path

import pytest

from mock_idp.runner.action import Action
from mock_idp.runner.docker_engine import DockerEngine
from mock_idp.runner.engine import Folders
from mock_idp.runner.errors import ActionError


@pytest.fixture
def client(tmp_path):
    """The environment with a docker client that prints its arguments and one variable, line by line."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\necho "value $SECRET"\ntest "$1" != build\n')
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin"}


@pytest.fixture
def action(tmp_path):
    return Action("Sample", tmp_path, tmp_path / "Dockerfile")


def test_a_container_is_started_as_the_runner_starts_one(client, action, tmp_path):
    """The command line has only variable names; mounts, working folder and arguments are the runner's."""
    engine = DockerEngine(action, client, "host")

    with engine.start(
        "after", ["a", ""], {"INPUT_API-URL": "x", "SECRET": "s3cret"}, Folders(tmp_path, tmp_path / "w")
    ) as process:
        words = process.communicate()[0].decode().splitlines()

    line = " ".join(words[:-1])
    assert words[-1] == "value s3cret"
    assert "s3cret" not in line
    assert (
        "--workdir /github/workspace --rm -e INPUT_API-URL -e SECRET --entrypoint after --network host"
        in line
    )
    targets = [word.rpartition(":")[2] for before, word in pairwise(words) if before == "-v"]
    assert targets == [
        "/var/run/docker.sock",
        "/github/workspace",
        "/github/file_commands",
        "/github/workflow",
        "/github/home",
        "/github/runner_temp",
    ]
    assert words[-3:-1] == ["a", ""]


def test_a_failed_build_is_explained_and_its_log_is_shown(client, action):
    """A failed build is an error, and the build's output is in a group of the log."""
    log = []

    with pytest.raises(ActionError, match="Docker build failed with exit code 1"):
        DockerEngine(action, client, "host").prepare(log.append)
    assert (log[0], log[1], log[-1]) == ("##[group]Building docker image", "build", "##[endgroup]")
    assert log[-3] == str(action.folder)


@pytest.mark.parametrize(
    ("buildx", "given", "used", "is_explained"),
    [
        ("exit 0", {}, "default", False),
        ("exit 0", {"DOCKER_BUILDKIT": "0"}, "0", False),
        ("exit 1", {}, "0", True),
        ("exit 1", {"DOCKER_BUILDKIT": "1"}, "0", True),
    ],
)
def test_the_builder_is_that_of_githubs_runners_where_the_client_has_it(
    client, action, buildx, given, used, is_explained
):
    """BuildKit is used unless the user disables it or the client lacks it; if it is lacking, the error says so."""
    program = Path(client["PATH"].partition(":")[0]) / "docker"
    program.write_text(
        f'#!/bin/sh\ntest "$1" = buildx && {buildx}\necho "builder ${{DOCKER_BUILDKIT:-default}}"\nexit 1\n'
    )
    log = []

    with pytest.raises(ActionError) as caught:
        DockerEngine(action, client | given, "host").prepare(log.append)
    assert f"builder {used}" in log
    assert ("classic builder" in str(caught.value)) is is_explained


def test_without_a_client_the_other_engine_is_named(action, tmp_path):
    """Without a docker client, the message names the other engine."""
    with pytest.raises(ActionError, match="docker is not on PATH; install Docker, or use --engine process"):
        DockerEngine(action, {"PATH": str(tmp_path)}, "host")
