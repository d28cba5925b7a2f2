"""The command line: `mock-idp serve`, `env` and `run`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click

from mock_idp import client
from mock_idp.environment import FORMATS
from mock_idp.job import ID_TOKEN_MODES, REF_OF_EVENT, RUNNER_ENVIRONMENTS, VISIBILITIES, Job, camel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_JOB_HELP = {
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


def _pairs(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read `NAME=VALUE` words."""
    pairs = [value.partition("=") for value in values]
    for value, (name, equals, _) in zip(values, pairs, strict=True):
        if not (name and equals):
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", param=parameter)
    return {name: value for name, _, value in pairs}


def _issuer(_ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """An issuer is compared byte by byte, so what would never match is refused here."""
    parts = urlsplit(value)
    is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
    is_path = value.startswith("/") and not parts.netloc
    if value and (not (is_url or is_path) or value.endswith("/") or parts.query or parts.fragment):
        raise click.BadParameter(
            f"{value!r} must be an http(s) URL, or a path such as /_services/token, without slash at its end and query",
            param=parameter,
        )
    return value


def _job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for item in reversed(dataclasses.fields(Job)):
        is_shown = isinstance(item.default, str) and item.default not in {"", REF_OF_EVENT}
        default = f" [default: {item.default}]" if is_shown else ""
        settings: dict[str, Any] = {"help": _JOB_HELP[item.name] + default}
        settings["envvar"] = f"MOCK_IDP_{item.name.upper()}"
        settings["show_envvar"] = True
        if item.name in _CHOICES:
            settings["type"] = click.Choice(_CHOICES[item.name])
        elif isinstance(item.default, bool):
            settings["is_flag"] = True
        elif item.name == "include_claim_keys":
            settings["multiple"] = True
        elif item.name == "repository_properties":
            settings |= {"multiple": True, "callback": _pairs, "metavar": "NAME=VALUE"}
        command = click.option(_flag(item.name), item.name, **settings)(command)
    return click.option(
        "--url",
        envvar="MOCK_IDP_URL",
        show_envvar=True,
        default="http://127.0.0.1:3001",
        show_default=True,
        help="where the mock listens",
    )(command)


def _start_job(url: str, options: dict[str, Any]) -> dict[str, Any]:
    given = {camel(name): value for name, value in options.items() if value not in (None, False, (), {})}
    try:
        return client.start_job(url, given)
    except client.MockUnavailableError as error:
        raise click.UsageError(str(error)) from error
    except client.JobRefusedError as error:
        flags = {camel(item.name): _flag(item.name) for item in dataclasses.fields(Job)}
        raise click.UsageError(f"{flags.get(error.field, error.field)} {error.reason}") from error


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """GitHub's OIDC issuer and Actions runner on this machine."""


@cli.command()
@click.option("--host", envvar="MOCK_IDP_HOST", show_envvar=True, default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    envvar="MOCK_IDP_PORT",
    show_envvar=True,
    default=3001,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 takes a free one",
)
@click.option(
    "--issuer",
    envvar="MOCK_IDP_ISSUER",
    show_envvar=True,
    default="",
    callback=_issuer,
    help="`iss` of the tokens: a URL, or a path such as /_services/token [default: this server's URL]",
)
def serve(host: str, port: int, issuer: str) -> None:
    """Serve the issuer, the ID-token request endpoint and the control API."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    # Flask and cryptography are most of the start-up time, and `env` needs neither.
    from mock_idp.server import MockIdp

    try:
        idp = MockIdp(host, port, issuer)
    except OSError as error:
        # `create_server` repeats the address in the text of the error.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        message = f"cannot listen on {host}:{port} ({reason}); choose another --host or --port (0 takes a free port)"
        raise click.UsageError(message) from error
    print(f"mock-idp: listening on {idp.url} (issuer {idp.issuer})", flush=True)
    idp.serve_forever()


def _stop(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


@cli.command()
@_job_options
@click.option("--format", "form", type=click.Choice(tuple(FORMATS)), default="sh", show_default=True)
def env(url: str, form: str, **options: Any) -> None:
    """Print the variables that a job would have; the job lasts as long as the mock."""
    print(FORMATS[form](_start_job(url, options)["variables"]))


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="as under `with:`; repeatable",
)
@click.option(
    "--env",
    "step_env",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="as under `env:`; repeatable",
)
@_job_options
@click.option("--engine", type=click.Choice(("process", "docker")), default="process", show_default=True)
@click.option("--network", default="host", show_default=True, help="of the container (engine docker)")
@click.option(
    "--workspace",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="[default: an empty folder]",
)
@click.option("--debug", is_flag=True, help="step debug logging, as ACTIONS_STEP_DEBUG gives")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="write outcome, outputs … (mode 0600)",
)
def run(folder: Path, json_file: Path | None, **options: Any) -> int:
    """Run one action folder as GitHub's runner would; exit 1 where the step fails."""
    from mock_idp.runner.errors import ActionError
    from mock_idp.runner.local_run import RunOptions, run_action

    signal.signal(signal.SIGTERM, _terminate)
    settings = {item.name: options.pop(item.name) for item in dataclasses.fields(RunOptions)}
    url = options.pop("url")
    if json_file:
        # Before the run: a report that cannot be written must not cost its result.
        _write_private(json_file, "")
    try:
        with _running_job(url, options) as job:
            result = run_action(folder, job, RunOptions(**settings), os.environ, _show)
    except ActionError as error:
        raise click.UsageError(str(error)) from error
    if json_file:
        _write_private(json_file, f"{json.dumps(result.as_json(), indent=2)}\n")
    return 0 if result.outcome == "success" else 1


def _terminate(_number: int, _frame: object) -> NoReturn:
    # An exception, so that the action's process and the job are ended on the way out.
    raise SystemExit(143)


def _show(line: str) -> None:
    print(line, flush=True)


@contextlib.contextmanager
def _running_job(url: str, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A job that ends with the block, as a request token of GitHub's ends with its job."""
    job = _start_job(url, options)
    try:
        yield job
    finally:
        # A mock that is gone has no job left to end.
        with contextlib.suppress(client.MockUnavailableError):
            client.end_job(url, job["jobId"])


def _write_private(file: Path, text: str) -> None:
    """Write outputs, which are secrets, for this user alone, also over a file that others could read."""
    try:
        file.touch(mode=0o600)
        file.chmod(0o600)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise click.UsageError(f"--json: cannot write {file}: {error.strerror}") from error


def main() -> NoReturn:
    """Entry point: an error is one line on stderr, wrong usage exits with 2."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        print(f"mock-idp: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
