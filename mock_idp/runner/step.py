"""A step that uses an action: its pre, main and post stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from mock_idp.runner.errors import ActionError
from mock_idp.runner.expressions import evaluate, runs_after
from mock_idp.runner.inputs import entry_and_arguments, input_variables, resolve_inputs
from mock_idp.runner.stage import Process, Stage, StepContext
from mock_idp.runner.workflow_commands import StepRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mock_idp.runner.action import Action
    from mock_idp.runner.engine import Engine
    from mock_idp.runner.expressions import Contexts


@dataclass(frozen=True)
class StepOptions:
    """The settings that a workflow's author writes for a step with an action: `with` and `env`."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """The result of a step: `outcome` is `success` or `failure`; outputs are not masked, as in the `steps` context."""

    outcome: str
    record: StepRecord

    def as_json(self) -> dict[str, Any]:
        """Return the report of `mock-idp run --json FILE`."""
        return {
            "outcome": self.outcome,
            "outputs": self.record.outputs,
            "summary": self.record.summary,
            "annotations": [note.as_json() for note in self.record.annotations],
            "state": self.record.state,
        }


class ActionStep:
    """Runs the stages of one action; `contexts` are those that defaults of inputs may use.

    `options` evaluates the author's settings. It is called again for the post stage, as in the runner, because later
    steps may have set outputs and changed the environment. Raises ActionError if the action cannot be run as it is.
    """

    def __init__(
        self,
        action: Action,
        engine: Engine,
        context: StepContext,
        options: Callable[[], StepOptions],
        contexts: Contexts,
    ) -> None:
        self.record = StepRecord()
        self._action = action
        self._engine = engine
        self._context = context
        self._evaluated_options = options
        self._contexts = contexts
        self._evaluate()

    def run(self) -> StepResult:
        """Run all stages. Cancellation and ActionError propagate, after the post stage has run for them too."""
        try:
            status = "failure" if self._main() else "success"
        except (SystemExit, KeyboardInterrupt):
            self._context.show("##[error]The operation was canceled.")
            self._post("cancelled")
            raise
        except ActionError:
            self._post("failure")
            raise
        return StepResult("failure" if self._post(status) else status, self.record)

    def _main(self) -> bool:
        """Run the pre and main stages; return True if one failed."""
        self._context.show_masked(self._header())
        self._engine.prepare(lambda line: self._context.show_masked([line]), self._entrypoint)
        failed = self._stage_if("Pre", self._action.pre_entrypoint, self._action.pre_if, "success")
        return failed or self._stage(self._entrypoint, self._warnings)

    def _post(self, status: str) -> bool:
        """Run the post stage if the status (`success`, `failure`, `cancelled`) allows it; return True if it failed."""
        self._evaluate()
        return self._stage_if("Post", self._action.post_entrypoint, self._action.post_if, status)

    def _evaluate(self) -> None:
        """Evaluate inputs, environment and arguments, as the runner does before a stage."""
        self._options = self._evaluated_options()
        self._inputs, self._warnings = resolve_inputs(self._action, self._options.inputs, self._contexts)
        self._entrypoint, self._args = entry_and_arguments(self._action, self._inputs)
        self._image_env = {
            name: evaluate(value, {"inputs": self._inputs}, "runs.env") for name, value in self._action.env
        }

    def _stage_if(self, name: str, entrypoint: str, condition: str, status: str) -> bool:
        if not (entrypoint and runs_after(condition, status, f"{name.lower()}-if")):
            return False
        self._context.show_masked([f"##[group]{name} {self._action.name}", "##[endgroup]"])
        return self._stage(entrypoint, [])

    def _stage(self, entrypoint: str, warnings: Sequence[str]) -> bool:
        """Run one stage; return True if it failed. As in the runner, a failing exit code has no log line."""
        folders = self._context.folders
        start = partial(self._engine.start, entrypoint, self._args, folders=folders)
        process = Process(start, self._engine.stop, self._engine.seen(folders))
        states = {f"STATE_{key}": value for key, value in self.record.state.items()}
        env = {**self._options.env, **states, **input_variables(self._inputs)}
        stage = Stage(self._context, self.record, process)
        code = stage.run(env, self._image_env, warnings)
        return self.record.failed or code != 0

    def _header(self) -> list[str]:
        with_values = [f"  {name}: {value}" for name, value in self._inputs.items() if value]
        env_values = [f"  {name}: {value}" for name, value in self._options.env.items()]
        shown = [
            *(["with:", *with_values] if with_values else []),
            *(["env:", *env_values] if env_values else []),
        ]
        return [f"##[group]Run {self._action.name}", *shown, "##[endgroup]"]
