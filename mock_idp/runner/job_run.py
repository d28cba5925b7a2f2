"""The steps of one job, one after the other, and their post stages in reverse."""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from mock_idp.runner.action import load_action
from mock_idp.runner.docker_engine import DockerEngine
from mock_idp.runner.errors import ActionError
from mock_idp.runner.expressions import evaluate
from mock_idp.runner.process_engine import ProcessEngine
from mock_idp.runner.script_step import ScriptStep
from mock_idp.runner.stage import StepContext, proxy_variables
from mock_idp.runner.step import ActionStep, StepOptions, StepResult
from mock_idp.runner.workflow_commands import StepRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mock_idp.runner.action import Action
    from mock_idp.runner.engine import Engine
    from mock_idp.runner.workflow_file import JobSource, StepSource

CHECKOUT: Final = "actions/checkout"
# Of a checkout that `--workspace` stands for, these change nothing.
_IDLE_INPUTS: Final = frozenset({"persist-credentials", "fetch-depth"})


class RunnableStep(Protocol):
    """A step that can be run: an action or a script."""

    record: StepRecord

    def main(self) -> bool:
        """Run it; True where it failed."""

    def post(self, status: str) -> bool:
        """What comes after the job, for its status; True where it failed."""


@dataclass(frozen=True)
class Machine:
    """What this machine offers to a job: the engine for actions, folders for `uses: NAME@REF`, whether the workspace is given."""

    engine: str = "process"
    network: str = "host"
    actions: Mapping[str, Path] = field(default_factory=dict)
    has_workspace: bool = False

    def engine_for(self, action: Action, environment: Mapping[str, str]) -> Engine:
        """The chosen engine. Raises ActionError where it cannot run this action."""
        if self.engine == "docker":
            return DockerEngine(action, environment, self.network)
        return ProcessEngine(action, environment)


@dataclass(frozen=True)
class JobResult:
    """How a job ended: `success` where every step and every post stage did."""

    outcome: str
    steps: tuple[tuple[StepSource, StepResult], ...]

    def as_json(self) -> dict[str, Any]:
        """The report of `mock-idp run FILE --json`."""
        steps = [{"id": source.id, "name": source.name, **result.as_json()} for source, result in self.steps]
        return {"outcome": self.outcome, "steps": steps}


def run_stages(steps: Sequence[RunnableStep], context: StepContext) -> list[str]:
    """Run steps until one fails, then the post stages of those that ran, the last one first; each step's outcome.

    A cancellation (SystemExit, KeyboardInterrupt) or an ActionError ends the step, runs the post stages too, and goes
    on its way.
    """
    outcomes = ["skipped"] * len(steps)
    started: list[int] = []
    try:
        for number, step in enumerate(steps):
            started.append(number)
            outcomes[number] = "failure" if step.main() else "success"
            if outcomes[number] == "failure":
                break
    except (SystemExit, KeyboardInterrupt):
        context.show("##[error]The operation was canceled.")
        _run_posts(steps, started, "cancelled")
        raise
    except ActionError:
        _run_posts(steps, started, "failure")
        raise
    status = "failure" if "failure" in outcomes else "success"
    for number in _run_posts(steps, started, status):
        outcomes[number] = "failure"
    return outcomes


def _run_posts(steps: Sequence[RunnableStep], started: Sequence[int], status: str) -> list[int]:
    """Run the post stages of the steps that were started, the last one first; those that failed."""
    return [number for number in reversed(started) if steps[number].post(status)]


def prepare(context: StepContext) -> str:
    """Make the runner's folders and files, mask the job's credentials; the `github.token`."""
    context.folders.create()
    (context.folders.workflow / "event.json").write_text(json.dumps(context.event), "utf-8")
    token = f"ghs_{uuid.uuid4().hex}"
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    passwords = [urlsplit(url).password or "" for url in proxy_variables(context.machine).values()]
    request_token = context.variables.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
    for secret in (token, basic, request_token, *passwords):
        context.masker.add(secret)
    return token


def contexts_of(context: StepContext, token: str) -> dict[str, dict[str, Any]]:
    """The contexts `github` and `runner`."""
    variables = context.variables
    github: dict[str, Any] = {
        name[7:].lower(): value for name, value in variables.items() if name.startswith("GITHUB_")
    }
    github |= {"token": token, "workspace": str(context.folders.workspace), "event": context.event}
    runner = {name[7:].lower(): value for name, value in variables.items() if name.startswith("RUNNER_")}
    return {"github": github, "runner": runner | {"temp": str(context.folders.temp)}}


class JobRun:
    """Runs the steps of a workflow file's job; `inputs` and `configuration` are the contexts `inputs` and `vars`."""

    def __init__(
        self,
        source: JobSource,
        context: StepContext,
        machine: Machine,
        inputs: Mapping[str, str],
        configuration: Mapping[str, str],
    ) -> None:
        self._source = source
        self._context = context
        self._machine = machine
        self._steps: dict[str, dict[str, Any]] = {}
        # Other events leave the declared inputs empty, defaults included.
        is_dispatched = context.variables.get("GITHUB_EVENT_NAME") == "workflow_dispatch"
        all_inputs = {**source.input_defaults, **inputs} if is_dispatched else inputs
        self._contexts: dict[str, Mapping[str, Any]] = {"inputs": all_inputs, "vars": configuration}

    def run(self) -> JobResult:
        """Run all steps. Raises ActionError where one cannot be run as it is; those before it have run then."""
        self._contexts |= contexts_of(self._context, prepare(self._context))
        given = dict(self._context.job_environment)
        evaluated = {name: self._evaluate(value, "env", {}) for name, value in self._source.env.items()}
        self._context.job_environment.update(evaluated | given)
        for step in self._source.steps:
            self._check(step)
        steps = [_LazyStep(self, step) for step in self._source.steps]
        outcomes = run_stages(steps, self._context)
        results = [StepResult(outcome, step.record) for outcome, step in zip(outcomes, steps, strict=True)]
        outcome = "failure" if "failure" in outcomes else "success"
        return JobResult(outcome, tuple(zip(self._source.steps, results, strict=True)))

    def make(self, step: StepSource) -> RunnableStep:
        """The step with its expressions evaluated, which may use what the steps before it have said."""
        if step.run:
            env = self._env(step)
            name = self._evaluate(step.name, f"{step.where}: `name`", env)
            script = self._evaluate(step.run, f"{step.where}: `run`", env)
            return ScriptStep(script, step.shell, env, name, self._context)
        if step.uses.partition("@")[0] == CHECKOUT and step.uses not in self._machine.actions:
            return _Checkout(self._context)
        action = load_action(self._folder(step))
        engine = self._machine.engine_for(action, self._context.machine)
        return ActionStep(action, engine, self._context, partial(self._options, step), self._contexts)

    def _options(self, step: StepSource) -> StepOptions:
        env = self._env(step)
        inputs = {
            key: self._evaluate(value, f"{step.where}: `with`", env) for key, value in step.inputs.items()
        }
        name = self._evaluate(step.name, f"{step.where}: `name`", env)
        return StepOptions(inputs, env, _about(step), name)

    def _env(self, step: StepSource) -> dict[str, str]:
        return {name: self._evaluate(value, f"{step.where}: `env`", {}) for name, value in step.env.items()}

    def finished(self, step: StepSource, record: StepRecord, *, failed: bool) -> None:
        """Let later steps see its outputs, where it has an id."""
        if step.id:
            outcome = "failure" if failed else "success"
            self._steps[step.id] = {"outputs": record.outputs, "outcome": outcome, "conclusion": outcome}

    def _evaluate(self, text: str, where: str, env: Mapping[str, str]) -> str:
        seen = {**self._context.job_environment, **env}
        return evaluate(text, {**self._contexts, "env": seen, "steps": self._steps}, where)

    def _check(self, step: StepSource) -> None:
        """Refuse now what could only fail later, after other steps have done their work."""
        if not step.uses or step.uses.startswith("./"):
            return
        if step.uses in self._machine.actions:
            return
        if step.uses.partition("@")[0] != CHECKOUT:
            raise ActionError(
                f"{step.where}: {step.uses} is not on this machine; name its folder with --action {step.uses}=FOLDER."
            )
        busy = sorted(step.inputs.keys() - _IDLE_INPUTS)
        if not self._machine.has_workspace or busy:
            what = f"`with.{busy[0]}` of a checkout" if busy else "a checkout"
            raise ActionError(
                f"{step.where}: mock-idp does not do {what}; give the checked-out folder with --workspace."
            )

    def _folder(self, step: StepSource) -> Path:
        if step.uses in self._machine.actions:
            return self._machine.actions[step.uses]
        folder = self._context.folders.workspace / step.uses
        if not folder.is_dir():
            raise ActionError(
                f"Can't find 'action.yml', 'action.yaml' or 'Dockerfile' under '{folder}'. Did you forget to run "
                "actions/checkout before running your local action? Here: to give --workspace."
            )
        return folder


def _about(step: StepSource) -> dict[str, str]:
    """What an action learns about itself; only one from another repository has a repository and a ref."""
    repository, _, ref = step.uses.partition("@")
    if not ref:
        return {"GITHUB_ACTION": step.id or "__self"}
    owner_and_name = "/".join(repository.split("/")[:2])
    return {
        "GITHUB_ACTION": step.id or f"__{re.sub(r'[^A-Za-z0-9_-]', '_', repository)}",
        "GITHUB_ACTION_REPOSITORY": owner_and_name,
        "GITHUB_ACTION_REF": ref,
    }


class _LazyStep:
    """A step that is made when its turn comes, since its expressions use the outputs of earlier ones."""

    def __init__(self, job: JobRun, source: StepSource) -> None:
        self.record = StepRecord()
        self._job = job
        self._source = source
        self._step: RunnableStep | None = None

    def main(self) -> bool:
        self._step = self._job.make(self._source)
        self.record = self._step.record
        failed = self._step.main()
        self._job.finished(self._source, self.record, failed=failed)
        return failed

    def post(self, status: str) -> bool:
        return self._step.post(status) if self._step else False


class _Checkout:
    """`actions/checkout`, for which the given workspace stands."""

    def __init__(self, context: StepContext) -> None:
        self.record = StepRecord()
        self._context = context

    def main(self) -> bool:
        workspace = self._context.folders.workspace
        self._context.show_masked(
            [f"##[group]Run {CHECKOUT}", f"the workspace is {workspace}", "##[endgroup]"]
        )
        return False

    def post(self, status: str) -> bool:
        del status
        return False
