"""`mock-idp env`."""

from __future__ import annotations

from typing import Any

import click

from mock_idp.cli.job_options import job_options, start_job
from mock_idp.environment import FORMATS


@click.command()
@job_options
@click.option("--format", "form", type=click.Choice(tuple(FORMATS)), default="sh", show_default=True)
def env(url: str, form: str, **options: Any) -> None:
    """Print the variables that a job would have; the job lasts as long as the mock."""
    print(FORMATS[form](start_job(url, options)["variables"]))
