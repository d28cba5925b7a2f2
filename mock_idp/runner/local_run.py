"""What `mock-idp run` does after its options are read: one action folder, or one job of a workflow file."""

from __future__ import annotations

import _thread
import contextlib
import signal
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mock_idp.runner.action import load_action
from mock_idp.runner.engine import Folders
from mock_idp.runner.job_run import JobResult, JobRun, Machine, contexts_of, prepare, run_stages
from mock_idp.runner.masks import SecretMasker
from mock_idp.runner.stage import StepContext
from mock_idp.runner.step import ActionStep, StepOptions, StepResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mock_idp.runner.workflow_file import JobSource


@dataclass(frozen=True)
class RunOptions:
    """What a workflow author, and the machine, decide.

    `inputs` are the step's `with:`, or the workflow's inputs; `step_env` the step's `env:`, or what wins over the
    job's; `configuration` and `actions` concern workflow files.
    """

    inputs: Mapping[str, str]
    step_env: Mapping[str, str]
    engine: str = "process"
    network: str = "host"
    workspace: Path | None = None
    debug: bool = False
    configuration: Mapping[str, str] = field(default_factory=dict)
    actions: Mapping[str, Path] = field(default_factory=dict)

    @property
    def on_machine(self) -> Machine:
        """What the machine offers."""
        return Machine(self.engine, self.network, self.actions, self.workspace is not None)


@dataclass(frozen=True)
class Runner:
    """This machine as a runner: `environment` is this program's, `show` takes the masked log line by line."""

    environment: Mapping[str, str] = field(repr=False)
    show: Callable[[str], None]

    def run_action(self, folder: Path, job: Mapping[str, Any], options: RunOptions) -> StepResult:
        """Run the action in `folder` as the one step of `job` (the answer of `POST /_mock/jobs`).

        Raises ActionError where the action cannot be run as it is.
        """
        action = load_action(folder)
        engine = options.on_machine.engine_for(action, self.environment)
        with self._context(job, options, {}) as context:
            contexts = contexts_of(context, prepare(context))
            given = StepOptions(options.inputs, options.step_env)
            step = ActionStep(action, engine, context, lambda: given, contexts)
            [outcome] = run_stages([step], context)
            return StepResult(outcome, step.record)

    def run_job(self, source: JobSource, job: Mapping[str, Any], options: RunOptions) -> JobResult:
        """Run the steps of a workflow file's job as `job`. Raises ActionError where one cannot be run as it is."""
        with self._context(job, options, options.step_env) as context, self._limit(source.timeout_minutes):
            return JobRun(source, context, options.on_machine, options.inputs, options.configuration).run()

    @contextlib.contextmanager
    def _limit(self, minutes: float) -> Iterator[None]:
        """Cancel the block, as Ctrl-C does, when its time is over."""

        def cancel() -> None:
            self.show(f"##[error]The job has exceeded the maximum execution time of {minutes:g} minutes.")
            _thread.interrupt_main()

        timer = threading.Timer(minutes * 60, cancel)
        timer.daemon = True
        # What a shell starts in the background ignores SIGINT, and then nothing would be interrupted.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def _context(
        self, job: Mapping[str, Any], options: RunOptions, environment: Mapping[str, str]
    ) -> Iterator[StepContext]:
        # A container leaves files of root behind, which a user without that right cannot remove.
        with tempfile.TemporaryDirectory(prefix="mock-idp-", ignore_cleanup_errors=True) as root:
            work = Path(root).resolve()
            name = job["variables"]["GITHUB_REPOSITORY"].rpartition("/")[2]
            yield StepContext(
                variables=job["variables"],
                event=job["event"],
                folders=Folders(work, (options.workspace or work / name / name).resolve()),
                machine=self.environment,
                masker=SecretMasker(),
                show=self.show,
                debug=options.debug,
                job_environment=dict(environment),
            )
