"""One step that runs a script: `run:`, by bash, on this machine.

Source: actions/runner, Handlers/ScriptHandler.cs and ScriptHandlerHelpers.cs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from typing import TYPE_CHECKING, Final

from mock_idp.runner.errors import ActionError
from mock_idp.runner.process_engine import machine_variables, stop_process
from mock_idp.runner.stage import Process, Stage, StepContext
from mock_idp.runner.workflow_commands import StepRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Without `shell:`, and with `shell: bash`, which also stops at a failure inside a pipe.
SHELLS: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("-e",),
    "bash": ("--noprofile", "--norc", "-eo", "pipefail"),
}


class ScriptStep:
    """Runs one script in the workspace with the job's environment. Raises ActionError where there is no bash."""

    def __init__(
        self, script: str, shell: str, env: Mapping[str, str], name: str, context: StepContext
    ) -> None:
        self.record = StepRecord()
        self._script = script
        self._env = env
        self._name = name
        self._context = context
        self._base = machine_variables(context.machine)
        bash = shutil.which("bash", path=self._base.get("PATH"))
        if bash is None:
            raise ActionError("`run:` needs bash, and there is none on PATH.")
        self._command = (bash, *SHELLS[shell])

    def main(self) -> bool:
        """Run the script; True where it failed. Unlike an action, it has a line about its exit code."""
        self._context.show_masked(self._header())
        file = self._context.folders.temp / f"{uuid.uuid4()}.sh"
        file.write_text(self._script, "utf-8", newline="\n")
        workspace = self._context.folders.workspace
        process = Process(lambda env: self._start(file, env), stop_process, {workspace: str(workspace)})
        stage = Stage(self._context, self.record, process)
        code = stage.run(self._env, {}, {"GITHUB_ACTION": "__run"}, ())
        if code:
            stage.annotate("error", f"Process completed with exit code {code}.")
        return self.record.failed or code != 0

    def post(self, status: str) -> bool:
        """A script has no stage after the job, whatever its status; False: nothing failed."""
        del status
        return False

    def _start(self, file: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        # What was written to GITHUB_PATH last is looked at first.
        found = os.pathsep.join([*reversed(self._context.path), self._base.get("PATH", "")])
        return subprocess.Popen(  # noqa: S603 (running the user's own script is what this command is for)
            [*self._command, str(file)],
            cwd=self._context.folders.workspace,
            env={**self._base, **env, "PATH": found},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def _header(self) -> list[str]:
        env_values = [f"  {name}: {value}" for name, value in self._env.items()]
        return [
            f"##[group]Run {self._name or self._script.strip().splitlines()[0]}",
            *self._script.rstrip().splitlines(),
            f"shell: {' '.join(self._command)} {{0}}",
            *(["env:", *env_values] if env_values else []),
            "##[endgroup]",
        ]
