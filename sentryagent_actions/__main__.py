"""`python -I -u -m sentryagent_actions ACTION`, or `sentryagent-actions ACTION`: the only place that touches the process."""

import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TextIO

from sentryagent_actions import issue_token, one_step, register_agent, revoke
from sentryagent_actions.cancellation import Cancellation
from sentryagent_actions.errors import InternalError
from sentryagent_actions.network import Clock
from sentryagent_actions.step import Step, report_failure
from sentryagent_actions.workflow import RunnerFileUnavailableError, Workflow

_ACTIONS: Mapping[str, Callable[[Step], int]] = {
    "issue-token": issue_token.run,
    "register-agent": register_agent.run,
    "toolkit": one_step.run,
    "revoke": revoke.run,
}
_USAGE = f"usage: sentryagent-actions {'|'.join(_ACTIONS)}\n"


def main(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    stdout: TextIO,
    cancellation: Cancellation | None = None,
) -> int:
    """Run the action that `arguments` names, as the image does; return the exit code (2: no such action)."""
    if len(arguments) != 1 or arguments[0] not in _ACTIONS:
        stdout.write(_USAGE)
        return 2
    return _in_workflow(_ACTIONS[arguments[0]], environ, stdout, cancellation or Cancellation())


def _in_workflow(
    action: Callable[[Step], int], environ: Mapping[str, str], stdout: TextIO, cancellation: Cancellation
) -> int:
    workflow = Workflow(environ, stdout)
    clock = Clock(time.time, time.monotonic, cancellation.sleep, random.random, cancellation)
    try:
        return _run(action, Step(environ, workflow, clock))
    except RunnerFileUnavailableError as error:
        workflow.error("SentryAgent: no way to the runner", str(error))
        return 1
    except KeyboardInterrupt:
        workflow.info("Cancelled.")
        return 130


def _run(action: Callable[[Step], int], step: Step) -> int:
    try:
        return action(step)
    except RunnerFileUnavailableError:
        raise
    except Exception as fault:  # noqa: BLE001 - whatever it is, the workflow's next steps must be able to read it
        return report_failure(step.workflow, InternalError(fault))


def start(arguments: Sequence[str]) -> NoReturn:
    """Be the process of the image: run the action with the real environment, clock and stdout, and exit."""
    sys.exit(main(arguments, os.environ, sys.stdout, _prepared()))


def _prepared() -> Cancellation:
    """Make stdout and the signals of this process what an action needs."""
    # A character that the runner's locale lacks must not end the step; a mask must be out before what it masks, without
    # -u as well. The runner reads UTF-8, also on Windows.
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]  # a text stream of the process
    cancellation = Cancellation()
    cancellation.on_signals()
    return cancellation


def command() -> NoReturn:
    """Be the command `sentryagent-actions`: an action without Docker, whose inputs are options."""
    first, *rest = sys.argv[1:] or [""]
    if first in _ACTIONS:
        sys.exit(_without_docker(first, rest))
    if first == "--version":
        from importlib.metadata import version  # takes 10 ms, and the image has no metadata

        sys.stdout.write(f"sentryagent-actions, version {version('sentryagent-actions')}\n")
    else:
        sys.stdout.write(_USAGE)
    sys.exit(0 if first in {"--version", "-h", "--help"} else 2)


def _without_docker(action: str, arguments: Sequence[str]) -> int:
    from sentryagent_actions import command_line, host  # the image needs neither

    inputs = command_line.inputs_of(action, arguments, os.environ)
    cancellation = _prepared()
    if action == "revoke":
        return _in_workflow(host.revoke_all, os.environ, sys.stdout, cancellation)
    environ = host.with_state({**os.environ, **inputs})
    return _in_workflow(_ACTIONS[action], environ, sys.stdout, cancellation)


if __name__ == "__main__":
    start(sys.argv[1:])
