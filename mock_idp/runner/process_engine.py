"""The engine without Docker: runs the image's entry point as a process, with this Python in place of the image's."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from mock_idp.runner.dockerfile import Dockerfile, read_dockerfile
from mock_idp.runner.errors import ActionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mock_idp.runner.action import Action
    from mock_idp.runner.engine import Folders

_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?")
# Variables that a container has itself and a process must take from this machine: the search path, and on Windows those
# that sockets and temporary files need.
_OF_THIS_MACHINE: Final = ("PATH", "SYSTEMROOT", "COMSPEC", "PATHEXT")
# A container has its own CA bundle; if this machine replaces its own, TLS fails without these variables.
_TLS: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_TERMINATION_SECONDS: Final = 2.5


class ProcessEngine:
    """Runs entry points found through the Dockerfile. Raises ActionError for a Dockerfile that it cannot follow."""

    def __init__(self, action: Action, machine: Mapping[str, str]) -> None:
        if action.dockerfile is None:
            raise ActionError(
                f"{action.image} is a published image; the process engine needs a Dockerfile. Use --engine docker."
            )
        self._dockerfile = read_dockerfile(action.dockerfile)
        self._stages = [word for word in (action.pre_entrypoint, action.post_entrypoint) if word]
        machine_values = {name: machine[name] for name in (*_OF_THIS_MACHINE, *_TLS) if name in machine}
        # This machine's PATH takes precedence: the image's PATH names programs of the image.
        self._base = {**self._dockerfile.environment, **machine_values}

    def prepare(self, show: Callable[[str], None], entrypoint: str = "") -> None:
        """Refuse a stage that could not start, before any other stage runs; nothing is built."""
        for word in (entrypoint, *self._stages):
            program = self._words(word)[0]
            if shutil.which(program) is None:
                raise ActionError(f"cannot start {program}: it is not installed on this machine.")
        show(f"engine process: {self._dockerfile.path.name} on Python {sys.version.split()[0]}, no container")

    def seen(self, folders: Folders) -> Mapping[Path, str]:
        """Return the workspace: a process sees the paths of this machine."""
        return {folders.workspace: str(folders.workspace)}

    def start(
        self, entrypoint: str, args: Sequence[str] | None, env: Mapping[str, str], folders: Folders
    ) -> subprocess.Popen[bytes]:
        """Start the entry point in the workspace, with empty standard input. Raises ActionError."""
        words = self._words(entrypoint)
        # Docker uses CMD as the arguments only if neither an entry point nor arguments are given.
        default = () if entrypoint else self._dockerfile.command
        arguments = [*words, *(default if args is None else args)]
        try:
            return subprocess.Popen(  # noqa: S603 (running the user's own action is what this command is for)
                arguments,
                cwd=folders.workspace,
                env={**self._base, **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise ActionError(f"cannot start {arguments[0]}: {error.strerror}.") from error

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Terminate the process, as the runner does, and kill it after 2.5 s."""
        process.terminate()
        try:
            process.wait(_TERMINATION_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _words(self, entrypoint: str) -> list[str]:
        return self._entry(entrypoint) if entrypoint else self._image_entry()

    def _image_entry(self) -> list[str]:
        words = self._dockerfile.entrypoint
        if not words:
            raise ActionError(
                f"{self._dockerfile.path} has no ENTRYPOINT in its last stage, and the process engine cannot read "
                "that of the base image. Add one, or use --engine docker."
            )
        first, *rest = words
        return [*self._entry(first), *(str(self._dockerfile.find(word) or word) for word in rest)]

    def _entry(self, word: str) -> list[str]:
        """Return the command line for a path or name in the image."""
        if _PYTHON.fullmatch(PurePosixPath(word).name):
            return _this_python()
        script = self._dockerfile.find(word)
        if script:
            return _command_of(script)
        return [_beside_this_python(word, self._dockerfile)]


def _this_python() -> list[str]:
    # Without -B, Python would leave __pycache__ in the action's folder.
    return [sys.executable, "-B"]


def _command_of(script: Path) -> list[str]:
    """Return the command line for a copied file: its shebang is honoured with flags, and Python replaced by this one."""
    with script.open("rb") as file:
        first = file.readline().decode("utf-8", "replace").rstrip()
    if not first.startswith("#!"):
        return [str(script)]
    words = shlex.split(first[2:])
    if PurePosixPath(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S"]
    name = PurePosixPath(words[0]).name
    interpreter = _this_python() if _PYTHON.fullmatch(name) else [shutil.which(name) or words[0]]
    return [*interpreter, *words[1:], str(script)]


def _beside_this_python(word: str, dockerfile: Dockerfile) -> str:
    """Return the console script next to this Python: the image and this environment install the same package."""
    name = PurePosixPath(word).name
    folder = Path(sys.executable).parent
    for candidate in (folder / name, folder / f"{name}.exe"):
        if os.access(candidate, os.X_OK):
            return str(candidate)
    raise ActionError(
        f"the process engine cannot find the entry point {word!r}: no COPY line of {dockerfile.path} copies a file "
        f"of that name from the build context, and there is no {name} in {folder}. Use --engine docker, or install "
        "the action's package into this Python."
    )
