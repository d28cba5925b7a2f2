"""Helpers of the commands that run another program as a job: the mock, the job's folders, the child process."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from mock_idp.runner.engine import Folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class NotStartedError(click.ClickException):
    """The program cannot be started; the exit codes are those of a shell, 127 if the program does not exist."""

    exit_code = 126


class NotFoundError(NotStartedError):
    """The program does not exist."""

    exit_code = 127


@contextlib.contextmanager
def mock_at(context: click.Context, url: str) -> Iterator[str]:
    """Yield the URL of the mock that the user named with --url or MOCK_IDP_URL, else start one for the block."""
    if context.get_parameter_source("url") is not ParameterSource.DEFAULT:
        yield url
        return
    # Imported here, because Flask and cryptography take time to import.
    from mock_idp.server import MockIdp

    with MockIdp() as idp:
        yield idp.url


@contextlib.contextmanager
def job_folders(workspace: Path, event: Mapping[str, object]) -> Iterator[Folders]:
    """Create the runner's folders and files for the block, with the user's workspace."""
    with tempfile.TemporaryDirectory(prefix="mock-idp-", ignore_cleanup_errors=True) as work:
        folders = Folders(Path(work).resolve(), workspace)
        folders.create(event)
        yield folders


def run_child(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program on this terminal; return its exit code, or 128 plus the number of the signal that ended it.

    SIGTERM is forwarded; SIGINT reaches the program from the terminal. Raises NotStartedError.
    """
    program = shutil.which(words[0], path=environment.get("PATH"))
    try:
        process = subprocess.Popen([program or words[0], *words[1:]], env=dict(environment))  # noqa: S603 (what this command is for)
    except OSError as error:
        kind = NotFoundError if isinstance(error, FileNotFoundError) else NotStartedError
        raise kind(f"cannot start {words[0]}: {error.strerror}") from error
    signal.signal(signal.SIGTERM, lambda _number, _frame: process.terminate())
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    code = process.wait()
    return 128 - code if code < 0 else code
