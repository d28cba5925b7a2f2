"""One action folder, one job, one step: what `mock-idp run` does after its options are read."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mock_idp.runner.action import Action, load_action
from mock_idp.runner.docker_engine import DockerEngine
from mock_idp.runner.engine import Engine, Folders
from mock_idp.runner.masks import SecretMasker
from mock_idp.runner.process_engine import ProcessEngine
from mock_idp.runner.step import Step, StepContext, StepResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class RunOptions:
    """What a workflow author, and the machine, decide about the step."""

    inputs: Mapping[str, str]
    step_env: Mapping[str, str]
    engine: str = "process"
    network: str = "host"
    workspace: Path | None = None
    debug: bool = False


def run_action(
    folder: Path,
    job: Mapping[str, Any],
    options: RunOptions,
    machine: Mapping[str, str],
    show: Callable[[str], None],
) -> StepResult:
    """Run the action in `folder` as a step of `job` (the answer of `POST /_mock/jobs`).

    `machine` is this program's environment, `show` takes the masked log line by line. Raises ActionError where the
    action cannot be run as it is.
    """
    action = load_action(folder)
    engine = _engine(action, options, machine)
    # A container leaves files of root behind, which a user without that right cannot remove.
    with tempfile.TemporaryDirectory(prefix="mock-idp-", ignore_cleanup_errors=True) as root:
        work = Path(root).resolve()
        name = job["variables"]["GITHUB_REPOSITORY"].rpartition("/")[2]
        context = StepContext(
            variables=job["variables"],
            event=job["event"],
            folders=Folders(work, (options.workspace or work / name / name).resolve()),
            machine=machine,
            masker=SecretMasker(),
            show=show,
            debug=options.debug,
        )
        return Step(action, engine, context, options.inputs, options.step_env).run()


def _engine(action: Action, options: RunOptions, machine: Mapping[str, str]) -> Engine:
    if options.engine == "docker":
        return DockerEngine(action, machine, options.network)
    return ProcessEngine(action, machine)
