"""The engine with Docker: builds and runs the container as GitHub's runner does.

Source: actions/runner, Handlers/ContainerActionHandler.cs, Container/DockerCommandManager.cs.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from mock_idp.runner.errors import ActionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mock_idp.runner.action import Action
    from mock_idp.runner.engine import Folders

_LABEL: Final = "mock-idp"
_CLASSIC: Final = (
    "It was built by the classic builder, which does not support heredocs, RUN --mount or COPY --link, because this machine has no "
    "`docker buildx`. GitHub's runners have it."
)
_WORKSPACE: Final = "/github/workspace"
# The variables that the docker client needs to find its daemon.
_CLIENT_VARIABLES: Final = (
    "PATH",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CONFIG",
)


class DockerEngine:
    """Runs the action's image. `network` is passed to `docker run`; with `host` a container reaches a mock on 127.0.0.1.

    Raises ActionError if no docker client is installed.
    """

    def __init__(self, action: Action, machine: Mapping[str, str], network: str) -> None:
        client = shutil.which("docker", path=machine.get("PATH"))
        if client is None:
            raise ActionError("docker is not on PATH; install Docker, or use --engine process.")
        self._docker = client
        self._machine = dict(machine)
        self._client_env = {name: machine[name] for name in _CLIENT_VARIABLES if name in machine}
        self._dockerfile = action.dockerfile
        self._network = network
        digest = hashlib.sha256(str(action.dockerfile).encode()).hexdigest()[:12]
        self._image = action.image or f"{_LABEL}-action:{digest}"
        self._container = ""

    def prepare(self, show: Callable[[str], None], entrypoint: str = "") -> None:  # noqa: ARG002 (the container decides)
        """Build the image with the Dockerfile's folder as context, and remove a previous image with other content."""
        if self._dockerfile is None:
            # As with GitHub's local actions: `docker run` pulls a missing image.
            return
        before = self._image_id()
        command = ["build", "-t", self._image, "-f", str(self._dockerfile), str(self._dockerfile.parent)]
        has_buildkit = self._has_buildkit()
        show("##[group]Building docker image")
        with subprocess.Popen(  # noqa: S603 (no shell; the arguments are ours)
            [self._docker, *command],
            env=self._machine | ({} if has_buildkit else {"DOCKER_BUILDKIT": "0"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as build:
            for line in build.stdout or ():
                show(line.rstrip())
        show("##[endgroup]")
        if build.returncode:
            builder = "" if has_buildkit else f" {_CLASSIC}"
            raise ActionError(
                f"Docker build failed with exit code {build.returncode}; its output is in the log above.{builder}"
            )
        if before and before != self._image_id():
            self._call("rmi", before)

    def seen(self, folders: Folders) -> Mapping[Path, str]:
        """Return the runner's mounts, in the order in which it translates paths."""
        return {
            folders.workspace: _WORKSPACE,
            folders.file_commands: "/github/file_commands",
            folders.workflow: "/github/workflow",
            folders.home: "/github/home",
            folders.temp: "/github/runner_temp",
        }

    def start(
        self, entrypoint: str, args: Sequence[str] | None, env: Mapping[str, str], folders: Folders
    ) -> subprocess.Popen[bytes]:
        """Start a container. Values of variables are in the client's environment, never on its command line."""
        self._container = f"{re.sub(r'[^a-z0-9]', '', self._image)}_{secrets.token_hex(3)}"
        command = ["run", "--name", self._container, "--label", _LABEL, "--workdir", _WORKSPACE, "--rm"]
        command += [word for variable in env for word in ("-e", variable)]
        command += ["--entrypoint", entrypoint] if entrypoint else []
        command += ["--network", self._network]
        command += ["-v", "/var/run/docker.sock:/var/run/docker.sock"]
        command += [word for here, there in self.seen(folders).items() for word in ("-v", f"{here}:{there}")]
        return subprocess.Popen(  # noqa: S603 (no shell; running the user's own action is what this command is for)
            [self._docker, *command, self._image, *(args or ())],
            env={**self._client_env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Remove the container: its first process may ignore signals and outlive the client."""
        self._call("rm", "--force", self._container)
        process.wait()

    def _has_buildkit(self) -> bool:
        """Whether this client builds as GitHub's runners do; without buildx it only has the classic builder."""
        return self._run("buildx", "version").returncode == 0

    def _image_id(self) -> str:
        return self._call("images", "-q", "--no-trunc", self._image).strip()

    def _call(self, *words: str) -> str:
        return self._run(*words).stdout

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 (no shell; the arguments are ours)
            [self._docker, *words],
            env=self._machine,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
