"""Workflow commands in the output of a step: how they are parsed, and their effects.

Source: actions/runner, Runner.Common/ActionCommand.cs, Runner.Worker/ActionCommandManager.cs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mock_idp.runner.masks import SecretMasker

REGISTERED: Final = frozenset(
    {
        "add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group",
        "internal-set-repo-path", "notice", "remove-matcher", "save-state", "set-env", "set-output",
        "stop-commands", "warning",
    }
)  # fmt: skip
ANNOTATION_LEVELS: Final = ("error", "warning", "notice")
MAX_ANNOTATIONS_PER_LEVEL: Final = 10
MAX_MESSAGE_LENGTH: Final = 4096
# In this order, so that "%250A" becomes the text "%0A".
_DATA_ESCAPES: Final = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))
_PROPERTY_ESCAPES: Final = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))
_LEGACY_ESCAPES: Final = (("%3B", ";"), ("%0D", "\r"), ("%0A", "\n"), ("%5D", "]"), ("%25", "%"))
_UNECHOED: Final = frozenset({"add-mask", "debug", "warning", "error", "notice"})


@dataclass(frozen=True)
class Command:
    """A workflow command: its name in lower case, its properties and its data."""

    name: str
    properties: Mapping[str, str]
    data: str


@dataclass(frozen=True)
class Annotation:
    """An annotation, which the run's page would show for `::error`, `::warning` or `::notice`."""

    level: str
    title: str
    message: str
    file: str = ""
    line: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the annotation for the JSON report, with `file` and `line` only if they are known."""
        place = {"file": self.file, "line": self.line}
        return {"level": self.level, "title": self.title, "message": self.message} | {
            name: value for name, value in place.items() if value
        }


class InvalidCommandError(ValueError):
    """A registered command that cannot be carried out, so that the step fails."""


def _unescaped(text: str, escapes: tuple[tuple[str, str], ...]) -> str:
    for escaped, plain in escapes:
        text = text.replace(escaped, plain)
    return text


def _properties(text: str, separator: str, escapes: tuple[tuple[str, str], ...]) -> dict[str, str]:
    pairs = (item.partition("=") for item in text.strip().split(separator))
    return {name.strip(): _unescaped(value, escapes) for name, _, value in pairs if name.strip() and value}


def parse_command(line: str, extra: str = "") -> Command | None:
    """Return the command in a line, or None. `extra` is the token that resumes stopped commands.

    The forms are `::name key=value::data` after optional spaces, and the legacy `##[name key=value]data` anywhere in
    the line, so that untrusted text can carry a command even mid-line.
    """
    registered = REGISTERED | {extra.lower()} if extra else REGISTERED
    stripped = line.lstrip()
    if stripped.startswith("::") and (end := stripped.find("::", 2)) >= 0:
        name, _, properties = stripped[2:end].partition(" ")
        if name.lower() in registered:
            data = _unescaped(stripped[end + 2 :], _DATA_ESCAPES)
            return Command(name.lower(), _properties(properties, ",", _PROPERTY_ESCAPES), data)
    start = line.find("##[")
    end = line.find("]", start)
    if start >= 0 and end >= 0:
        name, _, properties = line[start + 3 : end].partition(" ")
        if name.lower() in registered:
            data = _unescaped(line[end + 1 :], _LEGACY_ESCAPES)
            return Command(name.lower(), _properties(properties, ";", _LEGACY_ESCAPES), data)
    return None


@dataclass
class StepRecord:
    """The results of the commands and files of one step so far."""

    outputs: dict[str, str] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    annotations: list[Annotation] = field(default_factory=list)
    summary: str = ""
    failed: bool = False

    def set_output(self, name: str, value: str) -> None:
        """Store an output; names are case-insensitive, as in the `steps` context."""
        known = next((key for key in self.outputs if key.lower() == name.lower()), name)
        self.outputs[known] = value


class CommandProcessor:
    """Turns lines of output into log lines, and carries out their commands on a StepRecord.

    `workspace` is the workspace's path as the step sees it; annotations name files relative to it.
    """

    def __init__(
        self, record: StepRecord, masker: SecretMasker, workspace: str, *, debug: bool = False
    ) -> None:
        self._record = record
        self._masker = masker
        self._workspace = workspace
        self._debug = debug
        self._echo = debug
        self._stop_token = ""
        self._annotated: dict[str, int] = {}
        self._handlers: Mapping[str, Callable[[Command], list[str]]] = {
            "add-mask": self._add_mask,
            "debug": lambda command: [f"##[debug]{command.data}"] if self._debug else [],
            "echo": self._set_echo,
            "endgroup": lambda _command: ["##[endgroup]"],
            "group": lambda command: [f"##[group]{command.data}"],
            "save-state": self._save_state,
            "set-output": self._set_output,
            "stop-commands": self._stop,
            **dict.fromkeys(ANNOTATION_LEVELS, self._annotate),
        }

    def process(self, line: str) -> list[str]:
        """Return the masked log lines for one line of output: the line itself, or the lines that its command shows."""
        command = parse_command(line, self._stop_token)
        if command is None or (self._stop_token and command.name != self._stop_token.lower()):
            return self._masked([line])
        if self._stop_token:
            self._stop_token = ""
            return self._masked([line])
        shown = self._execute(command, line)
        if self._echo and command.name not in _UNECHOED | {"stop-commands"}:
            shown = [line, *shown]
        return self._masked(shown)

    def annotate(self, level: str, message: str, title: str = "", file: str = "", line: int = 0) -> list[str]:
        """Record an annotation and return its masked log line; GitHub keeps ten of each level."""
        message = self._masker.mask(message)[:MAX_MESSAGE_LENGTH]
        self._annotated[level] = self._annotated.get(level, 0) + 1
        if self._annotated[level] <= MAX_ANNOTATIONS_PER_LEVEL:
            note = Annotation(level, self._masker.mask(title), message, self._relative(file), line)
            self._record.annotations.append(note)
        return [f"##[{level}]{message}"]

    def _masked(self, lines: list[str]) -> list[str]:
        return [self._masker.mask(part) for line in lines for part in line.splitlines() or [""]]

    def _relative(self, file: str) -> str:
        return file.removeprefix(self._workspace).lstrip("/\\") if file.startswith(self._workspace) else file

    def _execute(self, command: Command, line: str) -> list[str]:
        try:
            handler = self._handlers.get(command.name, self._refuse)
            return handler(command)
        except InvalidCommandError as error:
            self._record.failed = True
            what = command.name if command.name in _UNECHOED else line
            first = self.annotate("error", f"Unable to process command '{what}' successfully.")
            return [*first, *self.annotate("error", str(error))]

    def _refuse(self, command: Command) -> list[str]:
        """Refuse a command that the runner has disabled; for a problem matcher, which needs a web page, only warn."""
        if command.name in {"add-matcher", "remove-matcher"}:
            return self.annotate(
                "warning", f"mock-idp does not support problem matchers; {command.name} has no effect."
            )
        raise InvalidCommandError(
            f"The `{command.name}` command is disabled. Please upgrade to using Environment Files: a line can be "
            "forged by whatever an action prints."
        )

    def _add_mask(self, command: Command) -> list[str]:
        if not command.data.strip():
            return self.annotate("warning", "Can't add secret mask for empty string in ##[add-mask] command.")
        self._masker.add(command.data)
        return [f"::add-mask::{'***'}"] if self._echo else []

    def _annotate(self, command: Command) -> list[str]:
        given = command.properties
        line = int(given["line"]) if given.get("line", "").isdecimal() else 0
        return self.annotate(command.name, command.data, given.get("title", ""), given.get("file", ""), line)

    def _set_echo(self, command: Command) -> list[str]:
        value = command.data.strip().lower()
        if value not in {"on", "off"}:
            raise InvalidCommandError(
                f"Invalid echo command value. Possible values can be: 'on', 'off'. Current value is: '{command.data}'."
            )
        self._echo = value == "on"
        return []

    def _named(self, command: Command) -> str:
        if "name" not in command.properties:
            raise InvalidCommandError(f"Required field 'name' is missing in ##[{command.name}] command.")
        return command.properties["name"]

    def _set_output(self, command: Command) -> list[str]:
        self._record.set_output(self._named(command), command.data)
        return self._deprecated(command.name)

    def _save_state(self, command: Command) -> list[str]:
        self._record.state[self._named(command)] = command.data
        return self._deprecated(command.name)

    def _deprecated(self, name: str) -> list[str]:
        message = f"The `{name}` command is deprecated and will be disabled soon. Please upgrade to using Environment Files."
        return self.annotate("warning", message)

    def _stop(self, command: Command) -> list[str]:
        token = command.data
        if not token or token.lower() in REGISTERED | {"pause-logging"}:
            raise InvalidCommandError(
                f"Invoked ::stop-commands:: with the token '{token}', which is empty or a command's own name; "
                "use a random one."
            )
        if len(token) > 6:
            self._masker.add(token)
        self._stop_token = token
        return [f"::stop-commands::{token}"]
