"""`mock-idp run`: an action's folder, or a workflow file."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from mock_idp.cli.job_options import given_options, job_options, pairs, running_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from mock_idp.runner.job_run import JobResult
    from mock_idp.runner.local_run import RunOptions
    from mock_idp.runner.step import StepResult


def _folders(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """Read `NAME@REF=FOLDER` words."""
    folders = {name: Path(folder) for name, folder in pairs(ctx, parameter, values).items()}
    for name, folder in folders.items():
        if "@" not in name or not folder.is_dir():
            raise click.BadParameter(
                f"{name}={folder} must be NAME@REF=FOLDER with a folder that exists", param=parameter
            )
    return folders


@click.command()
@click.argument("source", metavar="DIR|FILE.yml", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=pairs,
    metavar="NAME=VALUE",
    help="as under `with:`, or an input of the workflow; repeatable",
)
@click.option(
    "--env",
    "step_env",
    multiple=True,
    callback=pairs,
    metavar="NAME=VALUE",
    help="as under `env:`, or over the `env:` of the workflow's job; repeatable",
)
@job_options
@click.option("--engine", type=click.Choice(("process", "docker")), default="process", show_default=True)
@click.option("--network", default="host", show_default=True, help="of the container (engine docker)")
@click.option(
    "--workspace",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="[default: an empty folder]",
)
@click.option(
    "--job", "job_name", metavar="NAME", default="", help="the job of the workflow file, where it has several"
)
@click.option(
    "--var",
    "configuration",
    multiple=True,
    callback=pairs,
    metavar="NAME=VALUE",
    help="of the context `vars`; repeatable",
)
@click.option(
    "--action",
    "actions",
    multiple=True,
    callback=_folders,
    metavar="NAME@REF=FOLDER",
    help="where an action of the workflow lies; repeatable",
)
@click.option("--debug", is_flag=True, help="step debug logging, as ACTIONS_STEP_DEBUG gives")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="write outcome, outputs … (mode 0600)",
)
def run(source: Path, json_file: Path | None, job_name: str, url: str, **options: Any) -> int:
    """Run one action folder, or one job of a workflow file, as GitHub's runner would; exit 1 where it fails."""
    from mock_idp.runner.errors import ActionError
    from mock_idp.runner.local_run import RunOptions

    signal.signal(signal.SIGTERM, _terminate)
    settings = RunOptions(**{item.name: options.pop(item.name) for item in dataclasses.fields(RunOptions)})
    if source.is_dir() and (job_name or settings.configuration or settings.actions):
        raise click.UsageError(f"--job, --var and --action are for workflow files; {source} is a folder")
    if json_file:
        # Before the run: a report that cannot be written must not cost its result.
        write_private(json_file, "")
    try:
        result = (
            _run_folder(source, url, options, settings)
            if source.is_dir()
            else _run_file(source, job_name, url, options, settings)
        )
    except ActionError as error:
        raise click.UsageError(str(error)) from error
    if json_file:
        write_private(json_file, f"{json.dumps(result.as_json(), indent=2)}\n")
    return 0 if result.outcome == "success" else 1


def _run_folder(folder: Path, url: str, job_options: dict[str, Any], settings: RunOptions) -> StepResult:
    from mock_idp.runner.local_run import Runner

    with running_job(url, job_options) as job:
        return Runner(os.environ, _show()).run_action(folder, job, settings)


def _run_file(
    file: Path, name: str, url: str, job_options: dict[str, Any], settings: RunOptions
) -> JobResult:
    """What the file says about the job counts where no option says otherwise."""
    from mock_idp.runner.local_run import Runner
    from mock_idp.runner.workflow_file import read_job_source

    source = read_job_source(file, name)
    said = {
        "workflow": file.name,
        "workflow_name": source.workflow_name,
        "environment": source.environment,
        "id_token": "write" if source.may_request_id_token else "none",
    }
    with running_job(url, said | given_options(job_options)) as job:
        return Runner(os.environ, _show()).run_job(source, job, settings)


def _terminate(_number: int, _frame: object) -> NoReturn:
    # An exception, so that the action's process and the job are ended on the way out.
    raise SystemExit(143)


def _show() -> Callable[[str], None]:
    """Print log lines, in colour on a terminal."""
    from mock_idp.runner.log_style import is_wanted, styled

    if not is_wanted(os.environ, is_terminal=sys.stdout.isatty()):
        return click.echo

    def show(line: str) -> None:
        for shown in styled(line):
            click.echo(shown)

    return show


def write_private(file: Path, text: str) -> None:
    """Write outputs, which are secrets, for this user alone, also over a file that others could read."""
    try:
        file.touch(mode=0o600)
        file.chmod(0o600)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise click.UsageError(f"--json: cannot write {file}: {error.strerror}") from error
