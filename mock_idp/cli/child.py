"""Commands that run another program as a job: the mock it asks, the job's folders, its end."""

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
    """The program cannot be started; the exit codes are those of a shell, 127 if there is no such program."""

    exit_code = 126


class NotFoundError(NotStartedError):
    """There is no such program."""

    exit_code = 127


@contextlib.contextmanager
def mock_at(context: click.Context, url: str) -> Iterator[str]:
    """The URL of the mock that the user named with --url or MOCK_IDP_URL; else of one that lives for the block."""
    if context.get_parameter_source("url") is not ParameterSource.DEFAULT:
        yield url
        return
    # Flask and cryptography take time to import.
    from mock_idp.server import MockIdp

    with MockIdp() as idp:
        yield idp.url


@contextlib.contextmanager
def job_folders(workspace: Path, event: Mapping[str, object]) -> Iterator[Folders]:
    """The runner's folders and files for the block, with the workspace of the user."""
    with tempfile.TemporaryDirectory(prefix="mock-idp-", ignore_cleanup_errors=True) as work:
        folders = Folders(Path(work).resolve(), workspace)
        folders.create(event)
        yield folders


def run_child(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program on this terminal to its end; its exit code, or 128 and the number of the signal that ended it.

    SIGTERM is handed on; SIGINT reaches it from the terminal. Raises NotStartedError.
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
