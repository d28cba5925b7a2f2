"""The folders of the runner, and the interface of an engine that starts an action's stages on this machine."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# The variable of each file command and the name of its file, in the order in which the runner reads them.
_FILE_COMMANDS: Final = {
    "GITHUB_PATH": "add_path",
    "GITHUB_ENV": "set_env",
    "GITHUB_STEP_SUMMARY": "step_summary",
    "GITHUB_STATE": "save_state",
    "GITHUB_OUTPUT": "set_output",
}


@dataclass(frozen=True)
class Folders:
    """The runner's folders on this machine, all in `work`, except for a workspace that the user named."""

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
        """The folder of event.json."""
        return self.temp / "_github_workflow"

    @property
    def file_commands(self) -> Path:
        """The folder of the files behind GITHUB_OUTPUT and similar variables."""
        return self.temp / "_runner_file_commands"

    @property
    def event_file(self) -> Path:
        """The file with the event's payload."""
        return self.workflow / "event.json"

    @property
    def tools(self) -> Path:
        """RUNNER_TOOL_CACHE."""
        return self.work / "_tool"

    def create(self, event: Mapping[str, Any]) -> None:
        """Create the folders that do not exist yet, and the file with the event's payload."""
        for folder in (self.workspace, self.home, self.workflow, self.file_commands, self.tools):
            folder.mkdir(parents=True, exist_ok=True)
        self.event_file.write_text(json.dumps(event), "utf-8")

    def variables(self) -> dict[str, str]:
        """Return the variables of the folders and files that all steps of a job share."""
        return {
            "GITHUB_EVENT_PATH": str(self.event_file),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temp),
            "RUNNER_TOOL_CACHE": str(self.tools),
            "RUNNER_WORKSPACE": str(self.workspace.parent),
        }

    def step_variables(self) -> dict[str, str]:
        """Return the variables of the folders, and of empty files for one step."""
        return self.variables() | {name: str(file) for name, file in self.fresh_files().items()}

    def fresh_files(self) -> dict[str, Path]:
        """Create empty files for one step; return them by the variables of their file commands."""
        guid = uuid.uuid4()
        files = {name: self.file_commands / f"{file}_{guid}" for name, file in _FILE_COMMANDS.items()}
        for file in files.values():
            file.touch()
        return files


class Engine(Protocol):
    """Runs the stages of one action, one after the other."""

    def prepare(self, show: Callable[[str], None], entrypoint: str = "") -> None:
        """Prepare what all stages share; `show` takes log lines, `entrypoint` is the main stage's or empty.

        Raises ActionError, also for a stage that could not start.
        """

    def seen(self, folders: Folders) -> Mapping[Path, str]:
        """Return the paths of this machine and how the step sees them, the most specific paths first."""

    def start(
        self, entrypoint: str, args: Sequence[str] | None, env: Mapping[str, str], folders: Folders
    ) -> subprocess.Popen[bytes]:
        """Start a stage with the variables `env`; an empty entry point means the image's. Raises ActionError."""

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a stage that is still running."""
