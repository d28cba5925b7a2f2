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
    """The context of a step: the job's variables and event, the runner's folders, the log.

    `machine` is the environment of this program, of which only the proxy variables reach the step. `show` takes one
    masked log line. `job_environment` has the variables that a stage writes to GITHUB_ENV for the next ones.
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
        """Show lines that belong together, masked before they are split, since a multi-line secret is one value."""
        for line in self.masker.mask("\n".join(lines)).split("\n"):
            self.show(line)


@dataclass(frozen=True)
class Process:
    """How to start a stage with an environment and stop it early, and how it sees the paths of this machine."""

    start: Callable[[Mapping[str, str]], subprocess.Popen[bytes]]
    stop: Callable[[subprocess.Popen[bytes]], None]
    seen: Mapping[Path, str]


def proxy_variables(machine: Mapping[str, str]) -> dict[str, str]:
    """Return the six proxy variables as the runner sets them, in both cases; lower case takes precedence."""
    found = {name: machine.get(name) or machine.get(name.upper(), "") for name in _PROXY_VARIABLES}
    return {form: value for name, value in found.items() if value for form in (name.upper(), name)}


class Stage:
    """Runs one process of a step, and stores its results in the step's record."""

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
        """Run the process, read its files at the end, and return the exit code; sets `failed` in the record.

        `env` is the step's own environment, which overrides `defaults`.
        """
        self._record.failed = False
        files = self._context.folders.fresh_files()
        for warning in warnings:
            self._annotate("warning", warning)
        try:
            return self._execute(self._environment(files, env, defaults))
        finally:
            # Also after a cancellation: the post stage needs the state that the process saved.
            self._read_files(files)

    def _annotate(self, level: str, message: str) -> None:
        """Show an annotation of the runner itself."""
        self._show(self._commands.annotate(level, message))

    def _execute(self, env: Mapping[str, str]) -> int:
        process = self._process.start(env)
        try:
            for line in lines_of(process):
                self._show(self._commands.process(line))
            return process.wait()
        finally:
            # Reached early on Ctrl-C or SIGTERM: the process must not be left running.
            if process.poll() is None:
                self._process.stop(process)

    def _environment(
        self,
        files: Mapping[str, Path],
        own: Mapping[str, str],
        defaults: Mapping[str, str],
    ) -> dict[str, str]:
        """Return the step's environment in the runner's order of precedence; of this machine only the proxies."""
        folders = self._context.folders
        env = {**defaults, **proxy_variables(self._context.machine), **self._context.job_environment, **own}
        # The runner sets CI only if the workflow does not: `CI: false` switches some tools' checks off.
        variables = {"HOME": str(folders.home), **self._context.variables}
        env = env | variables | {"CI": env.get("CI", "true")}
        env |= {"GITHUB_ACTION": "__self", **folders.variables()}
        env |= {variable: str(file) for variable, file in files.items()}
        env |= {"RUNNER_DEBUG": "1"} if self._context.debug else {}
        return {name: self._translated(value) for name, value in env.items()}

    def _translated(self, value: str) -> str:
        """Translate a path in a mapped folder to how the step sees it; other values stay as they are."""
        for here, there in self._process.seen.items():
            if value == str(here) or value.startswith(f"{here}/"):
                return there + value[len(str(here)) :]
        return value

    def _read_files(self, files: Mapping[str, Path]) -> None:
        self._read_pairs(files["GITHUB_ENV"], "env", self._context.job_environment.__setitem__)
        self._read_summary(files["GITHUB_STEP_SUMMARY"])
        self._read_pairs(files["GITHUB_STATE"], "state", self._record.state.__setitem__)
        self._read_pairs(files["GITHUB_OUTPUT"], "output", self._record.set_output)

    def _read_pairs(self, file: Path, command: str, save: Callable[[str, str], None]) -> None:
        try:
            for name, value in parse_pairs(_content(file)):
                if command == "env" and name.upper() == "NODE_OPTIONS":
                    self._annotate(
                        "error", f"Can't store {name} output parameter using '$GITHUB_ENV' command."
                    )
                else:
                    save(name, value)
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
    """Return the file's text with every carriage return kept; empty if the step deleted the file."""
    try:
        return file.read_bytes().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return ""
