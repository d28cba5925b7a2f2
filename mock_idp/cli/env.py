"""`mock-idp env`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from mock_idp.cli.job_options import job_of_this_machine, start_job
from mock_idp.environment import FORMATS
from mock_idp.runner.engine import Folders


@click.command()
@job_of_this_machine
@click.option("--format", "form", type=click.Choice(tuple(FORMATS)), default="sh", show_default=True)
def env(url: str, form: str, **options: Any) -> None:
    """Print the variables that a job would have.

    The job lasts as long as the mock.

    GITHUB_WORKSPACE is the current folder; RUNNER_TEMP and the event file are in a new temporary folder.
    """
    job = start_job(url, options)
    variables = job["variables"]
    if form != "act":
        # The folder must outlive this command, so its removal is left to the operating system.
        folders = Folders(Path(tempfile.mkdtemp(prefix="mock-idp-")).resolve(), Path.cwd())
        folders.create(job["event"])
        variables = {**variables, **folders.variables()}
    print(FORMATS[form](variables))
