"""The options of a job on the command line: the same for `env`, `run` and `attack`."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import click

from mock_idp.client import MockClient, MockUnavailableError, RefusedError
from mock_idp.job import ID_TOKEN_MODES, REF_OF_EVENT, RUNNER_ENVIRONMENTS, VISIBILITIES, Job, camel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_HELP = {
    "repository": "OWNER/REPO",
    "ref": "git reference or branch name [default: what the event has, else refs/heads/main]",
    "event": "name of the event [default: push]",
    "environment": "deployment environment of the job",
    "actor": "login of who started the run",
    "workflow": "file name under .github/workflows",
    "workflow_name": "the workflow's `name:`",
    "sha": "commit, 40 hex digits",
    "id_token": "permission: write; none; fork = a pull request from a fork, which never has it",
    "repository_id": "instead of the id that follows from the name",
    "repository_owner_id": "instead of the id that follows from the name",
    "actor_id": "instead of the id that follows from the login",
    "run_id": "id of the workflow run",
    "run_number": "number of the run",
    "run_attempt": "number of the attempt",
    "check_run_id": "id of the job's check run",
    "visibility": "of the repository",
    "runner_environment": "who owns the machine",
    "ref_protected": "the ref has branch protection or a ruleset",
    "pull_request": "number of the pull request [default: 1]",
    "head_ref": "head branch of the pull request [default: feature]",
    "base_ref": "base branch of the pull request [default: main]",
    "called_workflow": "reusable workflow: OWNER/REPO/.github/workflows/FILE.yml@REF",
    "called_workflow_sha": "commit of the reusable workflow",
    "enterprise": "slug of the enterprise that the repository belongs to",
    "enterprise_id": "instead of the id that follows from the slug",
    "immutable_sub": "`sub` with ids, as repositories since July 2026 have it",
    "include_claim_keys": "key of a customised `sub`, such as repo, context or job_workflow_ref; repeatable, in order",
    "repository_properties": "custom property of the repository, becomes `repo_property_NAME`; repeatable",
}
_CHOICES = {
    "id_token": ID_TOKEN_MODES,
    "visibility": VISIBILITIES,
    "runner_environment": RUNNER_ENVIRONMENTS,
}


def _flag(name: str) -> str:
    # A repeatable flag gives one of its values.
    singular = {"include_claim_keys": "include_claim_key", "repository_properties": "repository_property"}
    return f"--{singular.get(name, name).replace('_', '-')}"


def pairs(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read `NAME=VALUE` words."""
    pairs = [value.partition("=") for value in values]
    for value, (name, equals, _) in zip(values, pairs, strict=True):
        if not (name and equals):
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", param=parameter)
    return {name: value for name, _, value in pairs}


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--url` and an option for each field of a job."""
    for item in reversed(dataclasses.fields(Job)):
        is_shown = isinstance(item.default, str) and item.default not in {"", REF_OF_EVENT}
        default = f" [default: {item.default}]" if is_shown else ""
        settings: dict[str, Any] = {"help": _HELP[item.name] + default}
        settings["envvar"] = f"MOCK_IDP_{item.name.upper()}"
        settings["show_envvar"] = True
        if item.name in _CHOICES:
            settings["type"] = click.Choice(_CHOICES[item.name])
        elif isinstance(item.default, bool):
            settings["is_flag"] = True
        elif item.name == "include_claim_keys":
            settings["multiple"] = True
        elif item.name == "repository_properties":
            settings |= {"multiple": True, "callback": pairs, "metavar": "NAME=VALUE"}
        command = click.option(_flag(item.name), item.name, **settings)(command)
    return click.option(
        "--url",
        envvar="MOCK_IDP_URL",
        show_envvar=True,
        default="http://127.0.0.1:3001",
        show_default=True,
        help="where the mock listens",
    )(command)


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a job that somebody gave: fields of `Job`."""
    return {name: value for name, value in options.items() if value not in (None, False, (), {})}


def flag_of(field: str) -> str:
    """The flag that a user types for a JSON field of a job; other names stay as they are."""
    return {camel(item.name): _flag(item.name) for item in dataclasses.fields(Job)}.get(field, field)


def start_job(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Start a job at the mock. Raises click.UsageError, which speaks of flags, for what it refuses."""
    given = {camel(name): value for name, value in given_options(options).items()}
    try:
        return MockClient(url).start_job(given)
    except MockUnavailableError as error:
        raise click.UsageError(str(error)) from error
    except RefusedError as error:
        raise click.UsageError(f"{flag_of(error.field)} {error.reason}") from error


@contextlib.contextmanager
def running_job(url: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A job that ends with the block, as a request token of GitHub's ends with its job."""
    job = start_job(url, options)
    try:
        yield job
    finally:
        # A mock that has gone has ended its jobs too.
        with contextlib.suppress(MockUnavailableError):
            MockClient(url).end_job(job["jobId"])
