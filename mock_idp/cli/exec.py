"""`mock-idp exec`: any command as a step of a job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from mock_idp.cli.child import job_folders, mock_at, run_child
from mock_idp.cli.job_options import as_job, job_with_its_own_mock, running_job


@click.command("exec", context_settings={"allow_interspersed_args": False})
@job_with_its_own_mock
@click.argument("words", metavar="CMD…", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def execute(context: click.Context, /, words: tuple[str, ...], url: str, **options: Any) -> int:
    """Run a command with the variables of a job.

    The exit code is that of the command. Without --url, a mock is started for the duration of the command, which finds
    its URL in MOCK_IDP_URL.
    """
    with (
        mock_at(context, url) as mock,
        running_job(mock, options) as job,
        job_folders(Path.cwd(), job["event"]) as folders,
    ):
        variables = {**job["variables"], **folders.step_variables(), "MOCK_IDP_URL": mock}
        return run_child(words, as_job(os.environ, variables))
