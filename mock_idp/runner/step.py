"""One step of a job: the stages of an action, their files and their log."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from mock_idp.runner.action import evaluate, runs_after
from mock_idp.runner.file_commands import MAX_SUMMARY_BYTES, FileCommandError, parse_pairs
from mock_idp.runner.inputs import entry_and_arguments, input_variables, resolve_inputs
from mock_idp.runner.streams import lines_of
from mock_idp.runner.workflow_commands import CommandProcessor, StepRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mock_idp.runner.action import Action
    from mock_idp.runner.engine import Engine, Folders
    from mock_idp.runner.masks import SecretMasker

_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "no_proxy")
# File command, variable; in the order in which the runner reads them.
_FILES: Final = {
    "add_path": "GITHUB_PATH",
    "set_env": "GITHUB_ENV",
    "step_summary": "GITHUB_STEP_SUMMARY",
    "save_state": "GITHUB_STATE",
    "set_output": "GITHUB_OUTPUT",
}


@dataclass(frozen=True)
class StepContext:
    """What surrounds the step: the job's variables and event, the runner's folders, the log.

    `machine` is the environment of this program: nothing but its proxies reaches the step. `show` takes one masked
    log line.
    """

    variables: Mapping[str, str] = field(repr=False)
    event: Mapping[str, Any]
    folders: Folders
    machine: Mapping[str, str] = field(repr=False)
    masker: SecretMasker = field(repr=False)
    show: Callable[[str], None]
    debug: bool = False


@dataclass(frozen=True)
class StepResult:
    """How the step ended: `outcome` is `success` or `failure`; outputs are not masked, as in the `steps` context."""

    outcome: str
    record: StepRecord

    def as_json(self) -> dict[str, Any]:
        """The report of `mock-idp run --json`."""
        return {
            "outcome": self.outcome,
            "outputs": self.record.outputs,
            "summary": self.record.summary,
            "annotations": [note.as_json() for note in self.record.annotations],
            "state": self.record.state,
        }


def proxy_variables(machine: Mapping[str, str]) -> dict[str, str]:
    """The six proxy variables as the runner sets them: lower case wins, both cases are set."""
    found = {name: machine.get(name) or machine.get(name.upper(), "") for name in _PROXY_VARIABLES}
    return {form: value for name, value in found.items() if value for form in (name.upper(), name)}


class Step:
    """Runs the stages of one action: pre, main, post. The post stage also runs after a failure."""

    def __init__(
        self,
        action: Action,
        engine: Engine,
        context: StepContext,
        inputs: Mapping[str, str],
        step_env: Mapping[str, str],
    ) -> None:
        self._action = action
        self._engine = engine
        self._context = context
        self._step_env = step_env
        self._record = StepRecord()
        self._seen = engine.seen(context.folders)
        self._github_token = f"ghs_{uuid.uuid4().hex}"
        self._add_masks()
        self._inputs, self._warnings = resolve_inputs(action, inputs, self._contexts())
        self._entrypoint, self._args = entry_and_arguments(action, self._inputs)
        self._image_env = {
            name: evaluate(value, {"inputs": self._inputs}, "runs.env") for name, value in action.env
        }

    def run(self) -> StepResult:
        """Run all stages. Raises ActionError where the action cannot be started."""
        self._context.folders.create()
        (self._context.folders.workflow / "event.json").write_text(json.dumps(self._context.event), "utf-8")
        self._show_masked(self._header())
        self._engine.prepare(lambda line: self._show_masked([line]))
        failed = self._stage_if("Pre", self._action.pre_entrypoint, self._action.pre_if, failed=False)
        if not failed:
            failed = self._stage("Run", self._entrypoint, self._warnings)
        post = self._stage_if("Post", self._action.post_entrypoint, self._action.post_if, failed=failed)
        return StepResult("failure" if failed or post else "success", self._record)

    def _stage_if(self, name: str, entrypoint: str, condition: str, *, failed: bool) -> bool:
        if not (entrypoint and runs_after(condition, failed=failed, where=f"{name.lower()}-if")):
            return False
        return self._stage(name, entrypoint, [])

    def _stage(self, name: str, entrypoint: str, warnings: list[str]) -> bool:
        """Run one stage; True where it failed."""
        self._record.failed = False
        files = self._fresh_files()
        seen_workspace = self._translated(str(self._context.folders.workspace))
        commands = CommandProcessor(
            self._record, self._context.masker, seen_workspace, debug=self._context.debug
        )
        if name != "Run":
            self._show_masked([f"##[group]{name} {self._action.name}", "##[endgroup]"])
        for warning in warnings:
            self._show_lines(commands.annotate("warning", warning))
        code = self._execute(entrypoint, self._environment(files), commands)
        self._read_files(files, commands)
        return self._record.failed or code != 0

    def _execute(self, entrypoint: str, env: Mapping[str, str], commands: CommandProcessor) -> int:
        process = self._engine.start(entrypoint, self._args, env, self._context.folders)
        try:
            for line in lines_of(process):
                self._show_lines(commands.process(line))
            return process.wait()
        finally:
            # Reached early on Ctrl-C or SIGTERM: nothing may be left running.
            if process.poll() is None:
                self._engine.stop(process)

    def _fresh_files(self) -> dict[str, Path]:
        folder, guid = self._context.folders.file_commands, uuid.uuid4()
        files = {command: folder / f"{command}_{guid}" for command in _FILES}
        for file in files.values():
            file.touch()
        return files

    def _environment(self, files: Mapping[str, Path]) -> dict[str, str]:
        """The step's environment; later ones win, in the runner's order. Nothing of this machine but proxies."""
        folders = self._context.folders
        env = {**proxy_variables(self._context.machine), **self._record.environment, **self._step_env}
        env |= {f"STATE_{name}": value for name, value in self._record.state.items()}
        env |= input_variables(self._inputs)
        env = {**self._image_env, **env, "HOME": str(folders.home), **self._context.variables}
        env |= {
            "GITHUB_ACTION": "__self",
            "GITHUB_EVENT_PATH": str(folders.workflow / "event.json"),
            "GITHUB_WORKSPACE": str(folders.workspace),
            "RUNNER_TEMP": str(folders.temp),
            "RUNNER_TOOL_CACHE": str(folders.work / "_tool"),
            "RUNNER_WORKSPACE": str(folders.workspace.parent),
        }
        env |= {variable: str(files[command]) for command, variable in _FILES.items()}
        env |= {"RUNNER_DEBUG": "1"} if self._context.debug else {}
        return {name: self._translated(value) for name, value in env.items()}

    def _translated(self, value: str) -> str:
        """A value that is, or lies under, a mapped folder, as the step sees it."""
        for here, there in self._seen.items():
            if value == str(here) or value.startswith(f"{here}/"):
                return there + value[len(str(here)) :]
        return value

    def _read_files(self, files: Mapping[str, Path], commands: CommandProcessor) -> None:
        # GITHUB_PATH of a Docker action concerns later `run:` steps only, and there are none here.
        self._read_pairs(files["set_env"], "env", self._record.environment.__setitem__, commands)
        self._read_summary(files["step_summary"], commands)
        self._read_pairs(files["save_state"], "state", self._record.state.__setitem__, commands)
        self._read_pairs(files["set_output"], "output", self._record.set_output, commands)

    def _read_pairs(
        self, file: Path, command: str, keep: Callable[[str, str], None], commands: CommandProcessor
    ) -> None:
        try:
            for name, value in parse_pairs(_content(file)):
                if command == "env" and name.upper() == "NODE_OPTIONS":
                    message = f"Can't store {name} output parameter using '$GITHUB_ENV' command."
                    self._show_lines(commands.annotate("error", message))
                else:
                    keep(name, value)
        except FileCommandError as error:
            self._record.failed = True
            message = f"Unable to process file command '{command}' successfully."
            self._show_lines(commands.annotate("error", message) + commands.annotate("error", str(error)))

    def _read_summary(self, file: Path, commands: CommandProcessor) -> None:
        content = _content(file)
        size = len(content.encode())
        if size > MAX_SUMMARY_BYTES:
            limit, actual = MAX_SUMMARY_BYTES // 1024, size // 1024
            message = f"$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of {limit}k, got {actual}k."
            self._show_lines(commands.annotate("error", message))
            return
        self._record.summary += "\n".join(self._context.masker.mask(line) for line in content.split("\n"))

    def _header(self) -> list[str]:
        with_values = [f"  {name}: {value}" for name, value in self._inputs.items() if value]
        env_values = [f"  {name}: {value}" for name, value in self._step_env.items()]
        shown = [
            *(["with:", *with_values] if with_values else []),
            *(["env:", *env_values] if env_values else []),
        ]
        return [f"##[group]Run {self._action.name}", *shown, "##[endgroup]"]

    def _show_masked(self, lines: list[str]) -> None:
        # Masked before it is split: a secret of several lines is one value.
        self._show_lines(self._context.masker.mask("\n".join(lines)).split("\n"))

    def _show_lines(self, masked: list[str]) -> None:
        for line in masked:
            self._context.show(line)

    def _add_masks(self) -> None:
        """What the runner masks before the first line: the job's own credentials and the passwords of proxies."""
        basic = base64.b64encode(f"x-access-token:{self._github_token}".encode()).decode()
        passwords = [urlsplit(url).password or "" for url in proxy_variables(self._context.machine).values()]
        request_token = self._context.variables.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
        for secret in (self._github_token, basic, request_token, *passwords):
            self._context.masker.add(secret)

    def _contexts(self) -> dict[str, dict[str, str]]:
        """The contexts that defaults of inputs may use, as far as one step has them."""
        variables = self._context.variables
        github = {name[7:].lower(): value for name, value in variables.items() if name.startswith("GITHUB_")}
        github |= {"token": self._github_token, "workspace": str(self._context.folders.workspace)}
        runner = {name[7:].lower(): value for name, value in variables.items() if name.startswith("RUNNER_")}
        return {"github": github, "runner": runner | {"temp": str(self._context.folders.temp)}}


def _content(file: Path) -> str:
    """The file as text with every carriage return kept; empty where the step deleted it."""
    try:
        return file.read_bytes().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return ""
