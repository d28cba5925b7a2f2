"""The command-line options of a job, shared by the commands that start one."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mock_idp.cli.checkout import describe_checkout
from mock_idp.client import MockClient, MockUnavailableError
from mock_idp.environment import JOB_PREFIXES
from mock_idp.job import JOB_FIELDS, REF_OF_EVENT, Job, camel
from mock_idp.strict_fields import InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


PATIENCE_SECONDS: Final = 10.0
"""How long commands wait for a mock that is starting."""
_PAUSE_SECONDS: Final = 0.05
# A workflow passes this variable on itself, and so may the user of the command.
_OF_THE_USER: Final = ("GITHUB_TOKEN",)


def as_job(environment: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command that runs as this job; `CI` keeps the user's value if it is set."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in _OF_THE_USER or not name.startswith(JOB_PREFIXES)
    }
    return {**kept, **variables, "CI": kept.get("CI", variables["CI"])}


def _flag(item: dataclasses.Field[Any]) -> str:
    return f"--{item.metadata['flag'] or item.name.replace('_', '-')}"


def pairs(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Parse `NAME=VALUE` words."""
    pairs = [value.partition("=") for value in values]
    for value, (name, equals, _) in zip(values, pairs, strict=True):
        if not (name and equals):
            raise click.BadParameter(f"{value!r} must have the form NAME=VALUE", param=parameter)
    return {name: value for name, _, value in pairs}


def pairs_option(flag: str, name: str, help_text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a repeatable option that takes `NAME=VALUE`."""
    about = f"{help_text}; repeatable"
    return click.option(flag, name, multiple=True, callback=pairs, metavar="NAME=VALUE", help=about)


_OF_KIND: Final[Mapping[str, dict[str, Any]]] = {
    "true or false": {"is_flag": True},
    "an array of strings": {"multiple": True},
    "an object of strings": {"multiple": True, "callback": pairs, "metavar": "NAME=VALUE"},
}


def _settings(item: dataclasses.Field[Any]) -> dict[str, Any]:
    is_shown = isinstance(item.default, str) and item.default not in {"", REF_OF_EVENT}
    default = f" [default: {item.default}]" if is_shown else ""
    settings = {"help": item.metadata["help"] + default, "show_envvar": True}
    settings["envvar"] = f"MOCK_IDP_{item.name.upper()}"
    if item.metadata["choices"]:
        settings["type"] = click.Choice(item.metadata["choices"])
    return settings | _OF_KIND.get(JOB_FIELDS[camel(item.name)], {})


def job_options(command: Callable[..., Any], shown_url: str | bool = True) -> Callable[..., Any]:
    """Add `--url` and an option for each field of a job; `shown_url` replaces the default of `--url` in the help."""
    for item in reversed(dataclasses.fields(Job)):
        command = click.option(_flag(item), item.name, **_settings(item))(command)
    return click.option(
        "--url",
        envvar="MOCK_IDP_URL",
        show_envvar=True,
        default="http://127.0.0.1:3001",
        show_default=shown_url,
        help="URL of the mock",
    )(command)


def job_of_this_machine(command: Callable[..., Any], shown_url: str | bool = True) -> Callable[..., Any]:
    """Add the options of a job and `--from-git`, for a job that runs on this machine; `shown_url` as in `job_options`."""
    about = "take repository, ref and commit from the checkout in the current folder; explicit options win"
    return job_options(click.option("--from-git", is_flag=True, help=about)(command), shown_url)


job_with_its_own_mock = partial(job_of_this_machine, shown_url="a mock that runs as long as the command")
"""The same options, for a command that starts its own mock if the user does not name one (`mock_at`)."""


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a job that the user gave: fields of `Job`."""
    return {name: value for name, value in options.items() if value not in (None, False, (), {})}


def git_options(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what `--from-git` finds in the checkout for the options not given, and clear `from_git`."""
    if not options.get("from_git"):
        return {}
    wanted = {"repository", "ref", "sha"} - given_options(options).keys()
    return {**describe_checkout(folder, wanted), "from_git": None}


def flag_of(field: str) -> str:
    """Return the flag for a JSON field of a job; other names stay as they are."""
    return {camel(item.name): _flag(item) for item in dataclasses.fields(Job)}.get(field, field)


def start_job(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Start a job at the mock. Raises click.UsageError, naming the flag, for a value that the mock refuses."""
    found = {**options, **git_options(options, Path.cwd())}
    given = {camel(name): value for name, value in given_options(found).items()}
    try:
        return _when_started(lambda: MockClient(url).start_job(given))
    except MockUnavailableError as error:
        raise click.UsageError(str(error)) from error
    except InvalidFieldError as error:
        raise click.UsageError(f"{flag_of(error.field)} {error.reason}") from error


def _when_started(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call `ask`, again while the mock is still starting, for example after `mock-idp serve &` in a script."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except MockUnavailableError as error:
            if not isinstance(error.__cause__, ConnectionError) or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def running_job(url: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Start a job that ends with the block, as GitHub's request token ends with its job."""
    job = start_job(url, options)
    try:
        yield job
    finally:
        # If the mock is gone, its jobs have ended too.
        with contextlib.suppress(MockUnavailableError):
            MockClient(url).end_job(job["jobId"])
