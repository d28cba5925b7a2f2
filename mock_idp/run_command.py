"""`mock-idp run`."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import click

from mock_idp.job_options import job_options, pairs, running_job


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=pairs,
    metavar="NAME=VALUE",
    help="as under `with:`; repeatable",
)
@click.option(
    "--env",
    "step_env",
    multiple=True,
    callback=pairs,
    metavar="NAME=VALUE",
    help="as under `env:`; repeatable",
)
@job_options
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
        write_private(json_file, "")
    try:
        with running_job(url, options) as job:
            result = run_action(folder, job, RunOptions(**settings), os.environ, _show)
    except ActionError as error:
        raise click.UsageError(str(error)) from error
    if json_file:
        write_private(json_file, f"{json.dumps(result.as_json(), indent=2)}\n")
    return 0 if result.outcome == "success" else 1


def _terminate(_number: int, _frame: object) -> NoReturn:
    # An exception, so that the action's process and the job are ended on the way out.
    raise SystemExit(143)


def _show(line: str) -> None:
    click.echo(line)


def write_private(file: Path, text: str) -> None:
    """Write outputs, which are secrets, for this user alone, also over a file that others could read."""
    try:
        file.touch(mode=0o600)
        file.chmod(0o600)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise click.UsageError(f"--json: cannot write {file}: {error.strerror}") from error
