"""How a stage of an action becomes a process on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """The runner's folders on this machine. `work` holds all but, where the user named one, the workspace."""

    work: Path
    workspace: Path

    @property
    def temp(self) -> Path:
        """RUNNER_TEMP."""
        return self.work / "_temp"

    @property
    def home(self) -> Path:
        """HOME of the step."""
        return self.temp / "_github_home"

    @property
    def workflow(self) -> Path:
        """Where event.json lies."""
        return self.temp / "_github_workflow"

    @property
    def file_commands(self) -> Path:
        """Where the files behind GITHUB_OUTPUT and its kin lie."""
        return self.temp / "_runner_file_commands"

    def create(self) -> None:
        """Make the folders that are not there yet."""
        for folder in (self.workspace, self.home, self.workflow, self.file_commands):
            folder.mkdir(parents=True, exist_ok=True)


class Engine(Protocol):
    """Runs one stage after the other of one action."""

    def prepare(self, show: Callable[[str], None]) -> None:
        """Make ready what all stages share; `show` takes log lines. Raises ActionError."""

    def seen(self, folders: Folders) -> Mapping[Path, str]:
        """Paths of this machine and how the step sees them, the most specific ones first."""

    def start(
        self, entrypoint: str, args: Sequence[str] | None, env: Mapping[str, str], folders: Folders
    ) -> subprocess.Popen[bytes]:
        """Start a stage with exactly `env`; no entry point: the image's. Raises ActionError."""

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a stage that is still running."""
