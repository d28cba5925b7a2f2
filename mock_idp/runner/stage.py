"""One process of a step: its environment, its files, its log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mock_idp.runner.file_commands import MAX_SUMMARY_BYTES, FileCommandError, parse_pairs
from mock_idp.runner.streams import lines_of
from mock_idp.runner.workflow_commands import CommandProcessor, StepRecord

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mock_idp.runner.engine import Folders
    from mock_idp.runner.masks import SecretMasker

_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class StepContext:
    """What surrounds a step: the job's variables and event, the runner's folders, the log.

    `machine` is the environment of this program: nothing but its proxies reaches the step. `show` takes one masked
    log line. `job_environment` is what a stage writes to GITHUB_ENV: the next one has it.
    """

    variables: Mapping[str, str] = field(repr=False)
    event: Mapping[str, Any]
    folders: Folders
    machine: Mapping[str, str] = field(repr=False)
    masker: SecretMasker = field(repr=False)
    show: Callable[[str], None]
    debug: bool = False
    job_environment: dict[str, str] = field(default_factory=dict, repr=False)

    def show_masked(self, lines: Sequence[str]) -> None:
        """Show lines of one piece; masked before they are split, since a secret of several lines is one value."""
        for line in self.masker.mask("\n".join(lines)).split("\n"):
            self.show(line)


@dataclass(frozen=True)
class Process:
    """How a stage starts with an environment, how it is ended early, and how it sees paths of this machine."""

    start: Callable[[Mapping[str, str]], subprocess.Popen[bytes]]
    stop: Callable[[subprocess.Popen[bytes]], None]
    seen: Mapping[Path, str]


def proxy_variables(machine: Mapping[str, str]) -> dict[str, str]:
    """The six proxy variables as the runner sets them: lower case wins, both cases are set."""
    found = {name: machine.get(name) or machine.get(name.upper(), "") for name in _PROXY_VARIABLES}
    return {form: value for name, value in found.items() if value for form in (name.upper(), name)}


class Stage:
    """Runs one process of a step and keeps what it says in the step's record."""

    def __init__(self, context: StepContext, record: StepRecord, process: Process) -> None:
        self._context = context
        self._record = record
        self._process = process
        workspace = self._translated(str(context.folders.workspace))
        self._commands = CommandProcessor(record, context.masker, workspace, debug=context.debug)

    def run(
        self,
        env: Mapping[str, str],
        defaults: Mapping[str, str],
        warnings: Sequence[str],
    ) -> int:
        """Run the process, its files read at the end; the exit code, and `failed` in the record.

        `env` is the step's own environment, `defaults` what it may override.
        """
        self._record.failed = False
        files = self._context.folders.fresh_files()
        for warning in warnings:
            self._annotate("warning", warning)
        try:
            return self._execute(self._environment(files, env, defaults))
        finally:
            # Also of a process that was cancelled: its post stage needs the state that it saved.
            self._read_files(files)

    def _annotate(self, level: str, message: str) -> None:
        """Log a line in the runner's own name."""
        self._show(self._commands.annotate(level, message))

    def _execute(self, env: Mapping[str, str]) -> int:
        process = self._process.start(env)
        try:
            for line in lines_of(process):
                self._show(self._commands.process(line))
            return process.wait()
        finally:
            # Reached early on Ctrl-C or SIGTERM: nothing may be left running.
            if process.poll() is None:
                self._process.stop(process)

    def _environment(
        self,
        files: Mapping[str, Path],
        own: Mapping[str, str],
        defaults: Mapping[str, str],
    ) -> dict[str, str]:
        """The step's environment; later ones win, in the runner's order. Nothing of this machine but proxies."""
        folders = self._context.folders
        env = {**defaults, **proxy_variables(self._context.machine), **self._context.job_environment, **own}
        # The runner sets CI only where the workflow does not: `CI: false` switches some tools' checks off.
        variables = {"HOME": str(folders.home), **self._context.variables}
        env = env | variables | {"CI": env.get("CI", "true")}
        env |= {"GITHUB_ACTION": "__self", **folders.variables()}
        env |= {variable: str(file) for variable, file in files.items()}
        env |= {"RUNNER_DEBUG": "1"} if self._context.debug else {}
        return {name: self._translated(value) for name, value in env.items()}

    def _translated(self, value: str) -> str:
        """A value that is, or lies under, a mapped folder, as the step sees it."""
        for here, there in self._process.seen.items():
            if value == str(here) or value.startswith(f"{here}/"):
                return there + value[len(str(here)) :]
        return value

    def _read_files(self, files: Mapping[str, Path]) -> None:
        self._read_pairs(files["GITHUB_ENV"], "env", self._context.job_environment.__setitem__)
        self._read_summary(files["GITHUB_STEP_SUMMARY"])
        self._read_pairs(files["GITHUB_STATE"], "state", self._record.state.__setitem__)
        self._read_pairs(files["GITHUB_OUTPUT"], "output", self._record.set_output)

    def _read_pairs(self, file: Path, command: str, keep: Callable[[str, str], None]) -> None:
        try:
            for name, value in parse_pairs(_content(file)):
                if command == "env" and name.upper() == "NODE_OPTIONS":
                    self._annotate(
                        "error", f"Can't store {name} output parameter using '$GITHUB_ENV' command."
                    )
                else:
                    keep(name, value)
        except FileCommandError as error:
            self._record.failed = True
            self._annotate("error", f"Unable to process file command '{command}' successfully.")
            self._annotate("error", str(error))

    def _read_summary(self, file: Path) -> None:
        content = _content(file)
        size = len(content.encode())
        if size > MAX_SUMMARY_BYTES:
            limit, actual = MAX_SUMMARY_BYTES // 1024, size // 1024
            message = f"$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of {limit}k, got {actual}k."
            self._annotate("error", message)
            return
        self._record.summary += "\n".join(self._context.masker.mask(line) for line in content.split("\n"))

    def _show(self, masked: Sequence[str]) -> None:
        for line in masked:
            self._context.show(line)


def _content(file: Path) -> str:
    """The file as text with every carriage return kept; empty where the step deleted it."""
    try:
        return file.read_bytes().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return ""
