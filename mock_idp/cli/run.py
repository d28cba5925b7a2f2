"""`mock-idp run`: run an action's folder as GitHub's runner does."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from mock_idp.cli.job_options import job_of_this_machine, pairs_option, running_job

if TYPE_CHECKING:
    from collections.abc import Callable


def _folder(_ctx: click.Context, _parameter: click.Parameter, value: Path) -> Path:
    if not value.is_dir():
        raise click.UsageError(
            f"{value} is a file, but `mock-idp run` takes an action's folder; run a workflow with act: "
            f"mock-idp act -- -W {value}"
        )
    return value


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, path_type=Path), callback=_folder)
@pairs_option("--input", "inputs", "an input, as under `with:`")
@pairs_option("--env", "step_env", "a variable, as under `env:`")
@job_of_this_machine
@click.option("--engine", type=click.Choice(("process", "docker")), default="process", show_default=True)
@click.option("--network", default="host", show_default=True, help="network of the container (docker engine)")
@click.option(
    "--workspace",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="the job's workspace [default: an empty folder]",
)
@click.option("--debug", is_flag=True, help="turn on step debug logging, like ACTIONS_STEP_DEBUG")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="write the outcome, outputs and more to this file (mode 0600)",
)
def run(folder: Path, json_file: Path | None, url: str, **options: Any) -> int:
    """Run an action folder as GitHub's runner would.

    Exits with 1 if the action fails.
    """
    from mock_idp.runner.errors import ActionError
    from mock_idp.runner.local_run import Runner, RunOptions
    from mock_idp.runner.step import StepOptions

    signal.signal(signal.SIGTERM, _terminate)
    step = StepOptions(options.pop("inputs"), options.pop("step_env"))
    settings = RunOptions(**{item.name: options.pop(item.name) for item in dataclasses.fields(RunOptions)})
    if json_file:
        # Checked before the run, so that a report that cannot be written does not cost the result.
        write_private(json_file, "")
    try:
        with running_job(url, options) as job:
            result = Runner(os.environ, _show()).run_action(folder, job, settings, lambda: step)
    except ActionError as error:
        raise click.UsageError(str(error)) from error
    if json_file:
        write_private(json_file, f"{json.dumps(result.as_json(), indent=2)}\n")
    return 0 if result.outcome == "success" else 1


def _terminate(_number: int, _frame: object) -> NoReturn:
    # Raise an exception, so that the action's process and the job are ended on the way out.
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
    """Write secret outputs to a file that only this user can read, even if others could read it before."""
    try:
        file.touch(mode=0o600)
        file.chmod(0o600)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise click.UsageError(f"--json: cannot write {file}: {error.strerror}") from error
