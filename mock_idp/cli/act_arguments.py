"""Read act's arguments to find what it will run: the event, the one workflow, the commit and the actor."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mock_idp.cli.checkout import commit_of
from mock_idp.runner.action import read_yaml
from mock_idp.runner.errors import ActionError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

# The short flags that take a value, by their long names.
_SHORT: Final = {
    "a": "actor", "C": "directory", "e": "eventpath", "j": "job", "P": "platform", "s": "secret", "W": "workflows",
}  # fmt: skip
_SHORT_SWITCHES: Final = {"l": "list", "h": "help", "g": "graph"}
# With one of these flags act does not run a workflow.
_ONLY_ASKS: Final = frozenset(
    {"list", "help", "graph", "version", "bug-report", "list-options", "man-page", "validate"}
)


@dataclass(frozen=True)
class Workflow:
    """A workflow file: its name in act, the events that start it, the keys of its jobs."""

    file: Path
    name: str
    events: frozenset[str]
    jobs: frozenset[str]


@dataclass(frozen=True)
class Arguments:
    """The arguments of act that determine the token's claims; empty if act does not run a workflow."""

    positional: tuple[str, ...]
    given: dict[str, list[str]]
    folder: Path = Path()
    event: str = ""
    sha: str = ""
    workflow: Workflow = Workflow(Path(), "", frozenset(), frozenset())

    @property
    def only_asks(self) -> bool:
        """Whether act only prints something and does not run a workflow."""
        return not _ONLY_ASKS.isdisjoint(self.given)

    @property
    def actor(self) -> str:
        """The login in `--actor`."""
        return _last(self.given, "actor")

    @property
    def event_file(self) -> str:
        """The path in `--eventpath`."""
        return _last(self.given, "eventpath")


def read_arguments(words: Sequence[str], switches: Collection[str], event: str | None) -> Arguments:
    """Determine what act runs with these arguments, which take precedence over its own settings files.

    `switches` are the long flags without a value; `event` is the value of mock-idp's own option. Raises
    click.UsageError if the arguments do not select exactly one workflow, or if the checkout has no commit.
    """
    positional, given = _split(words, switches)
    _, settings = _split(list(_settings()), switches)
    given = settings | given
    arguments = Arguments(tuple(positional), given)
    if arguments.only_asks:
        return arguments
    folder = Path(_last(given, "directory") or ".").resolve()
    workflows = _workflows(folder, given)
    started = _event(positional, event, workflows, given)
    workflow = _chosen(workflows, started, _last(given, "job"))
    event_file = arguments.event_file and folder / arguments.event_file
    sha = (_sha_in_event(started, event_file) if event_file else "") or commit_of(folder)
    return Arguments(tuple(positional), given, folder, started, sha, workflow)


def _last(given: dict[str, list[str]], name: str) -> str:
    return given.get(name, [""])[-1]


def _settings() -> Iterator[str]:
    """Yield the words of act's settings files: a flag and its value on each line."""
    home = Path.home()
    configured = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    for file in (configured / "act" / "actrc", home / ".actrc", Path(".actrc")):
        lines = file.read_text("utf-8").splitlines() if file.is_file() else []
        yield from (word for line in lines if line.startswith("-") for word in line.split(maxsplit=1))


def _split(words: Sequence[str], switches: Collection[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the positional words, and the values of each flag by its long name; a switch has an empty value."""
    positional: list[str] = []
    given: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            given.setdefault(name, []).append(value if equals or name in switches else next(rest, ""))
        elif word.startswith("-"):
            _short(word[1:], rest, given)
        else:
            positional.append(word)
    return positional, given


def _short(letters: str, rest: Iterator[str], given: dict[str, list[str]]) -> None:
    """Parse one word of short flags: `-j build`, `-jbuild`, `-nj=build`."""
    for place, letter in enumerate(letters, 1):
        if letter in _SHORT:
            value = letters[place:].removeprefix("=") or next(rest, "")
            given.setdefault(_SHORT[letter], []).append(value)
            return
        given.setdefault(_SHORT_SWITCHES.get(letter, letter), []).append("")


def _workflows(folder: Path, given: dict[str, list[str]]) -> list[Workflow]:
    place = folder / (_last(given, "workflows") or ".github/workflows")
    pattern = "*" if "no-recurse" in given else "**/*"
    files = [place] if place.is_file() else sorted(place.glob(pattern))
    return [_workflow(file) for file in files if file.is_file() and file.suffix in {".yml", ".yaml"}]


def _workflow(file: Path) -> Workflow:
    try:
        document = read_yaml(file)
    except ActionError as error:
        raise click.UsageError(str(error)) from error
    events = document.get("on") or ()
    jobs = document.get("jobs")
    return Workflow(
        file,
        str(document.get("name") or file.name),
        frozenset([events] if isinstance(events, str) else map(str, events)),
        frozenset(jobs if isinstance(jobs, dict) else ()),
    )


def _event(
    positional: Sequence[str], event: str | None, workflows: list[Workflow], given: dict[str, list[str]]
) -> str:
    """Return the event as act chooses it: the first word, the only event that starts a workflow, or push."""
    if positional and event and positional[0] != event:
        raise click.UsageError(
            f"--event {event} differs from act's event {positional[0]}; give only one of them"
        )
    known = sorted({name for workflow in workflows for name in workflow.events})
    if positional or event:
        return positional[0] if positional else str(event)
    return known[0] if len(known) == 1 or (known and "detect-event" in given) else "push"


def _chosen(workflows: list[Workflow], event: str, job: str) -> Workflow:
    """Return the one workflow that runs. Raises click.UsageError."""
    started = [it for it in workflows if (job in it.jobs if job else event in it.events)]
    what = f"has the job {job}" if job else f"starts on {event}"
    if not started:
        raise click.UsageError(
            f"no workflow {what}; choose one with -W FILE, or another event: mock-idp act -- EVENT"
        )
    if len(started) > 1:
        names = ", ".join(workflow.file.name for workflow in started)
        raise click.UsageError(
            f"more than one workflow {what} ({names}), but a token belongs to only one; choose one with -W FILE or -j JOB"
        )
    return started[0]


def _sha_in_event(event: str, file: Path) -> str:
    """Return the commit that act takes from the `--eventpath` file; empty if it uses the commit of the checkout."""
    try:
        payload = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--eventpath: cannot read {file}: {error}") from error
    if event == "pull_request_target":
        return _text(payload, "pull_request", "base", "sha")
    if event in {"deployment", "deployment_status"}:
        return _text(payload, "deployment", "sha")
    is_pushed = event in {"push", "create", "workflow_dispatch"} and _value(payload, "deleted") is False
    return _text(payload, "after") if is_pushed else ""


def _text(payload: Any, *path: str) -> str:
    value = _value(payload, *path)
    return value if isinstance(value, str) else ""


def _value(payload: Any, *path: str) -> Any:
    for name in path:
        payload = payload.get(name) if isinstance(payload, dict) else None
    return payload
