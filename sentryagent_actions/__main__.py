"""Entry points: `python -I -u -m sentryagent_actions ACTION` and `sentryagent-actions ACTION`; only they touch the process."""

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
    """Run the action named in `arguments`, as the image does, and return its exit code (2 for an unknown action)."""
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
        workflow.error("SentryAgent: cannot write to the runner's files", str(error))
        return 1
    except KeyboardInterrupt:
        workflow.info("Cancelled.")
        return 130


def _run(action: Callable[[Step], int], step: Step) -> int:
    try:
        return action(step)
    except RunnerFileUnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 - any failure must set the outputs that the workflow's next steps read
        return report_failure(step.workflow, InternalError(error))


def start(arguments: Sequence[str]) -> NoReturn:
    """Run an action as the image's process, with the real environment, clock and stdout, and exit."""
    sys.exit(main(arguments, os.environ, sys.stdout, _prepared()))


def _prepared() -> Cancellation:
    """Set up stdout and the signal handlers as an action needs them."""
    # A character missing from the runner's locale must not end the step. Even without -u, a mask must be written before
    # the text that it hides. The runner reads UTF-8, also on Windows.
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]  # a text stream of the process
    cancellation = Cancellation()
    cancellation.on_signals()
    return cancellation


def command() -> NoReturn:
    """Run the command `sentryagent-actions`: an action without Docker, whose inputs are command-line options."""
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
